// Reads metrics as Prometheus does: prometheus_text FILE...
//
// Each file is the body of a scrape, in order of time. Fails when one can't be parsed, or when a
// counter of an earlier one is smaller, or gone, in a later one. Prints the last one's samples, sorted, as
// "TYPE NAME{LABEL=VALUE,...} NUMBER".
package main

import (
	"fmt"
	"os"
	"sort"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

type sample struct {
	kind  string
	value float64
}

func parse(path string) (map[string]sample, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var parser expfmt.TextParser
	families, err := parser.TextToMetricFamilies(file)
	if err != nil {
		return nil, err
	}
	samples := map[string]sample{}
	for name, family := range families {
		if family.GetHelp() == "" {
			return nil, fmt.Errorf("%s has no help", name)
		}
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, label := range metric.GetLabel() {
				labels = append(labels, label.GetName()+"="+label.GetValue())
			}
			key := name + "{" + strings.Join(labels, ",") + "}"
			switch family.GetType() {
			case dto.MetricType_COUNTER:
				samples[key] = sample{"counter", metric.GetCounter().GetValue()}
			case dto.MetricType_GAUGE:
				samples[key] = sample{"gauge", metric.GetGauge().GetValue()}
			default:
				return nil, fmt.Errorf("%s is a %v", name, family.GetType())
			}
		}
	}
	return samples, nil
}

func run(paths []string) error {
	var before map[string]sample
	for _, path := range paths {
		now, err := parse(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for key, was := range before {
			if is, there := now[key]; was.kind == "counter" && (!there || is.value < was.value) {
				return fmt.Errorf("%s: %s was %v, is %v", path, key, was.value, is.value)
			}
		}
		before = now
	}
	var lines []string
	for key, is := range before {
		lines = append(lines, fmt.Sprintf("%s %s %v", is.kind, key, is.value))
	}
	sort.Strings(lines)
	for _, line := range lines {
		fmt.Println(line)
	}
	return nil
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

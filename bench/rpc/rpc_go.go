// The Go side of the rpc benchmark: containerd's ttrpc as server and as client.
//
//	rpc_go serve SOCKET                         answers CapabilitiesVM until killed
//	rpc_go latency SOCKET SECONDS               one call after the other: median round trip
//	rpc_go throughput SOCKET SECONDS IN_FLIGHT  calls per second over one connection
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"bothy/vmservice"

	"github.com/containerd/ttrpc"
	"github.com/gogo/protobuf/types"
)

type service struct {
	vmservice.VMService // the methods that the benchmark doesn't call
}

// What a server with everything implemented answers; rpc_cc.cc has the same.
func (service) CapabilitiesVM(context.Context, *types.Empty) (*vmservice.CapabilitiesVMResponse, error) {
	response := &vmservice.CapabilitiesVMResponse{
		SupportedGuestOs: []vmservice.CapabilitiesVMResponse_SupportedGuestOS{
			vmservice.CapabilitiesVMResponse_Linux,
		},
	}
	for resource := vmservice.CapabilitiesVMResponse_Vpmem; resource <= vmservice.CapabilitiesVMResponse_Processor; resource++ {
		response.SupportedResources = append(response.SupportedResources,
			&vmservice.CapabilitiesVMResponse_SupportedResource{
				Resource: resource,
				Add:      resource != vmservice.CapabilitiesVMResponse_Plan9,
				Remove:   resource != vmservice.CapabilitiesVMResponse_Plan9,
				Update:   resource == vmservice.CapabilitiesVMResponse_Memory || resource == vmservice.CapabilitiesVMResponse_Scsi,
			})
	}
	return response, nil
}

func serve(path string) {
	server, err := ttrpc.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	vmservice.RegisterVMService(server, service{})
	listener, err := net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	os.Stdout.Close() // ready, as the VM server says it
	log.Fatal(server.Serve(context.Background(), listener))
}

func connect(path string) vmservice.VMService {
	conn, err := net.Dial("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	return vmservice.NewVMClient(ttrpc.NewClient(conn))
}

func call(client vmservice.VMService) {
	response, err := client.CapabilitiesVM(context.Background(), &types.Empty{})
	if err != nil {
		log.Fatal(err)
	}
	if len(response.SupportedResources) != 7 {
		log.Fatal("expected seven resources: ", response)
	}
}

func latency(path string, duration time.Duration) {
	client := connect(path)
	for end := time.Now().Add(duration / 5); time.Now().Before(end); {
		call(client)
	}
	times := make([]time.Duration, 0, 1<<20)
	for end := time.Now().Add(duration); ; {
		before := time.Now()
		if !before.Before(end) {
			break
		}
		call(client)
		times = append(times, time.Since(before))
	}
	sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
	fmt.Println(times[len(times)/2].Nanoseconds())
}

func throughput(path string, duration time.Duration, inFlight int) {
	client := connect(path)
	var calls int64
	var running sync.WaitGroup
	begin := time.Now()
	end := begin.Add(duration)
	for i := 0; i < inFlight; i++ {
		running.Add(1)
		go func() {
			defer running.Done()
			for time.Now().Before(end) {
				call(client)
				atomic.AddInt64(&calls, 1)
			}
		}()
	}
	running.Wait()
	fmt.Printf("%.0f\n", float64(calls)/time.Since(begin).Seconds())
}

func argument(i int) string {
	if i >= len(os.Args) {
		log.Fatal("usage: rpc_go serve SOCKET | latency SOCKET SECONDS | throughput SOCKET SECONDS IN_FLIGHT")
	}
	return os.Args[i]
}

func seconds(text string) time.Duration {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		log.Fatal(err)
	}
	return time.Duration(value * float64(time.Second))
}

func main() {
	switch argument(1) {
	case "serve":
		serve(argument(2))
	case "latency":
		latency(argument(2), seconds(argument(3)))
	case "throughput":
		inFlight, err := strconv.Atoi(argument(4))
		if err != nil {
			log.Fatal(err)
		}
		throughput(argument(2), seconds(argument(3)), inFlight)
	default:
		argument(len(os.Args))
	}
}

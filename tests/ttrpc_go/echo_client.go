// A Go client of the test service: echo_client SOCKET CHECK. Silent and 0 when the check holds.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"bothy/echo"

	"github.com/containerd/ttrpc"
	"github.com/gogo/protobuf/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type peer struct {
	connection *ttrpc.Client
	echo       echo.EchoService
}

func expect(condition bool, format string, arguments ...interface{}) error {
	if condition {
		return nil
	}
	return fmt.Errorf(format, arguments...)
}

func checkEcho(p peer) error {
	response, err := p.echo.Echo(context.Background(), &echo.EchoRequest{Text: "grüße", Payload: []byte{0, 255}})
	if err != nil {
		return err
	}
	if response.TimeoutNano != 0 || len(response.Metadata) != 0 {
		return fmt.Errorf("what nobody sent: %v", response)
	}
	return expect(response.Text == "grüße" && bytes.Equal(response.Payload, []byte{0, 255}), "got %v", response)
}

func checkErrors(p peer) error {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		message := fmt.Sprintf("config.devices[%d]: nö", code)
		_, err := p.echo.Fail(context.Background(), &echo.FailRequest{Code: int32(code), Message: message})
		if status.Code(err) != code || status.Convert(err).Message() != message {
			return fmt.Errorf("code %v: got %v", code, err)
		}
	}
	return nil
}

func checkUnknown(p peer) error {
	var response types.Empty
	err := p.connection.Call(context.Background(), "bothy.testing.Echo", "Nothing", &types.Empty{}, &response)
	if status.Code(err) != codes.Unimplemented {
		return fmt.Errorf("unknown method: %v", err)
	}
	err = p.connection.Call(context.Background(), "no.Service", "Echo", &types.Empty{}, &response)
	return expect(status.Code(err) == codes.Unimplemented, "unknown service: %v", err)
}

func checkUndecodable(p peer) error {
	// Bytes where the server wants UTF-8.
	var response echo.EchoResponse
	err := p.connection.Call(context.Background(), "bothy.testing.Echo", "Echo",
		&echo.FailRequest{Code: 1, Message: "\xff"}, &response)
	return expect(status.Code(err) == codes.InvalidArgument, "undecodable payload: %v", err)
}

func checkDeadline(p peer) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	response, err := p.echo.Echo(ctx, &echo.EchoRequest{})
	if err != nil {
		return err
	}
	if response.TimeoutNano <= 0 || response.TimeoutNano > time.Hour.Nanoseconds() {
		return fmt.Errorf("the server sees %d ns", response.TimeoutNano)
	}
	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err = p.echo.Wait(short, &types.Empty{}); !errors.Is(err, context.DeadlineExceeded) &&
		status.Code(err) != codes.DeadlineExceeded {
		return fmt.Errorf("a call beyond its deadline: %v", err)
	}
	return checkEcho(p)
}

func checkMetadata(p peer) error {
	md := ttrpc.MD{"tenant": {"b", "a"}, "trace": {"1"}}
	response, err := p.echo.Echo(ttrpc.WithMetadata(context.Background(), md), &echo.EchoRequest{})
	if err != nil {
		return err
	}
	var got string
	for _, pair := range response.Metadata {
		got += pair.Key + "=" + pair.Value + " "
	}
	return expect(got == "tenant=b tenant=a trace=1 ", "got %s", got)
}

func checkBig(p peer) error {
	for _, size := range []int{1 << 16, 1 << 20, 4<<20 - 1000} {
		payload := bytes.Repeat([]byte{'x'}, size)
		response, err := p.echo.Echo(context.Background(), &echo.EchoRequest{Payload: payload})
		if err != nil {
			return err
		}
		if !bytes.Equal(response.Payload, payload) {
			return fmt.Errorf("%d bytes came back as %d", size, len(response.Payload))
		}
	}
	return nil
}

func checkTooBig(p peer) error {
	_, err := p.echo.Echo(context.Background(), &echo.EchoRequest{Payload: make([]byte, 20<<20)})
	if status.Code(err) != codes.ResourceExhausted {
		return fmt.Errorf("a request of 20 MiB: %v", err)
	}
	_, err = p.echo.Fill(context.Background(), &echo.FillRequest{Size_: 4 << 20})
	if status.Code(err) != codes.ResourceExhausted {
		return fmt.Errorf("an answer of 4 MiB and a bit: %v", err)
	}
	return checkEcho(p)
}

func checkConcurrent(p peer) error {
	failures := make(chan error, 64)
	for worker := 0; worker < 64; worker++ {
		go func(worker int) {
			for i := 0; i < 50; i++ {
				text := fmt.Sprint(worker, "/", i)
				response, err := p.echo.Echo(context.Background(), &echo.EchoRequest{Text: text})
				if err == nil {
					err = expect(response.Text == text, "got %v for %v", response, text)
				}
				if err != nil {
					failures <- err
					return
				}
			}
			failures <- nil
		}(worker)
	}
	for worker := 0; worker < 64; worker++ {
		if err := <-failures; err != nil {
			return err
		}
	}
	return nil
}

func checkOutOfOrder(p peer) error {
	var waiting sync.WaitGroup
	failures := make(chan error, 32)
	for i := 0; i < 32; i++ {
		waiting.Add(1)
		go func() {
			defer waiting.Done()
			_, err := p.echo.Wait(context.Background(), &types.Empty{})
			failures <- err
		}()
	}
	for released := int32(0); released < 32; {
		response, err := p.echo.Release(context.Background(), &types.Empty{})
		if err != nil {
			return err
		}
		released += response.Released
	}
	waiting.Wait()
	for i := 0; i < 32; i++ {
		if err := <-failures; err != nil {
			return err
		}
	}
	return nil
}

// Leaves with a call in flight.
func checkLeave(p peer) error {
	gone := make(chan error)
	go func() {
		_, err := p.echo.Wait(context.Background(), &types.Empty{})
		gone <- err
	}()
	for waiting := uint32(0); waiting == 0; {
		response, err := p.echo.Echo(context.Background(), &echo.EchoRequest{})
		if err != nil {
			return err
		}
		waiting = response.Waiting
	}
	p.connection.Close()
	return expect(<-gone != nil, "a call outlived its connection")
}

func main() {
	checks := map[string]func(peer) error{
		"echo": checkEcho, "errors": checkErrors, "unknown": checkUnknown, "undecodable": checkUndecodable,
		"deadline": checkDeadline, "metadata": checkMetadata, "big": checkBig, "too-big": checkTooBig,
		"concurrent": checkConcurrent, "out-of-order": checkOutOfOrder, "leave": checkLeave,
	}
	if len(os.Args) != 3 || checks[os.Args[2]] == nil {
		fmt.Println("usage: echo_client SOCKET CHECK")
		os.Exit(2)
	}
	socket, err := net.Dial("unix", os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	connection := ttrpc.NewClient(socket)
	if err := checks[os.Args[2]](peer{connection, echo.NewEchoClient(connection)}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

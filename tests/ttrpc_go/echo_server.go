// The test service on containerd's server: echo_server SOCKET. Closes its standard output when it is
// ready, and runs until it is killed.
package main

import (
	"bytes"
	"context"
	"log"
	"net"
	"os"
	"sort"
	"sync"
	"time"

	"bothy/echo"

	"github.com/containerd/ttrpc"
	"github.com/gogo/protobuf/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type service struct {
	mutex   sync.Mutex
	waiting []chan struct{}
}

func (s *service) Echo(ctx context.Context, request *echo.EchoRequest) (*echo.EchoResponse, error) {
	response := &echo.EchoResponse{Text: request.Text, Payload: request.Payload}
	md, _ := ttrpc.GetMetadata(ctx)
	var keys []string
	for key := range md {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		for _, value := range md[key] {
			response.Metadata = append(response.Metadata, &echo.Pair{Key: key, Value: value})
		}
	}
	s.mutex.Lock()
	response.Waiting = uint32(len(s.waiting))
	s.mutex.Unlock()
	if deadline, ok := ctx.Deadline(); ok {
		response.TimeoutNano = time.Until(deadline).Nanoseconds()
	}
	return response, nil
}

func (*service) Fail(_ context.Context, request *echo.FailRequest) (*types.Empty, error) {
	return nil, status.Error(codes.Code(request.Code), request.Message)
}

func (s *service) Wait(ctx context.Context, _ *types.Empty) (*echo.EchoResponse, error) {
	released := make(chan struct{})
	s.mutex.Lock()
	s.waiting = append(s.waiting, released)
	s.mutex.Unlock()
	select {
	case <-released:
		return &echo.EchoResponse{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *service) Release(context.Context, *types.Empty) (*echo.ReleaseResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, released := range s.waiting {
		close(released)
	}
	count := len(s.waiting)
	s.waiting = nil
	return &echo.ReleaseResponse{Released: int32(count)}, nil
}

func (*service) Fill(_ context.Context, request *echo.FillRequest) (*echo.EchoResponse, error) {
	return &echo.EchoResponse{Payload: bytes.Repeat([]byte{'x'}, int(request.Size_))}, nil
}

func main() {
	server, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
	if err != nil {
		log.Fatal(err)
	}
	echo.RegisterEchoService(server, &service{})
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	os.Stdout.Close()
	log.Fatal(server.Serve(context.Background(), listener))
}

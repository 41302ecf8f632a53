// The VM service on containerd's server: vm_server SOCKET. Answers with what it was asked, so that a
// client sees how its requests arrive. Closes its standard output when it is ready.
package main

import (
	"context"
	"log"
	"net"
	"os"

	"bothy/vmservice"

	"github.com/containerd/ttrpc"
	"github.com/gogo/protobuf/jsonpb"
	"github.com/gogo/protobuf/proto"
	"github.com/gogo/protobuf/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type service struct {
	vmservice.VMService // the methods that no test calls
}

func text(message proto.Message) string {
	text, err := (&jsonpb.Marshaler{OrigName: true}).MarshalToString(message)
	if err != nil {
		log.Fatal(err)
	}
	return text
}

func (service) CreateVM(_ context.Context, request *vmservice.CreateVMRequest) (*types.Empty, error) {
	return nil, status.Error(codes.FailedPrecondition, text(request))
}

func (service) InspectVM(_ context.Context, request *vmservice.InspectVMRequest) (*vmservice.InspectVMResponse, error) {
	return &vmservice.InspectVMResponse{Result: &types.Value{Kind: &types.Value_StructValue{StructValue: &types.Struct{
		Fields: map[string]*types.Value{
			"request": {Kind: &types.Value_StringValue{StringValue: text(request)}},
			"null":    {Kind: &types.Value_NullValue{}},
			"number":  {Kind: &types.Value_NumberValue{NumberValue: 1.5}},
		},
	}}}}, nil
}

func (service) PropertiesVM(context.Context, *vmservice.PropertiesVMRequest) (*vmservice.PropertiesVMResponse, error) {
	return &vmservice.PropertiesVMResponse{
		MemoryStats:    &vmservice.MemoryStats{WorkingSetBytes: 1 << 63},
		ProcessorStats: &vmservice.ProcessorStats{TotalRuntimeNs: 12345},
		State:          vmservice.VmState_Halted,
		HaltReason:     "reset",
	}, nil
}

func main() {
	server, err := ttrpc.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	vmservice.RegisterVMService(server, service{})
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	os.Stdout.Close()
	log.Fatal(server.Serve(context.Background(), listener))
}

// A Go client of the VM service: vm_client SOCKET. Makes each kind of call that carries something, and
// prints what came back as JSON, one answer a line.
package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"bothy/vmservice"

	"github.com/containerd/ttrpc"
	"github.com/gogo/protobuf/jsonpb"
	"github.com/gogo/protobuf/proto"
	"github.com/gogo/protobuf/types"
)

func request() *vmservice.CreateVMRequest {
	return &vmservice.CreateVMRequest{
		LogId: "vm-1",
		Config: &vmservice.VMConfig{
			MemoryConfig:    &vmservice.MemoryConfig{MemoryMb: 1 << 40, AllowOvercommit: true, HighMmioBaseInMb: 4096},
			ProcessorConfig: &vmservice.ProcessorConfig{ProcessorCount: 8, ProcessorLimit: 50000},
			DevicesConfig: &vmservice.DevicesConfig{
				ScsiDisks: []*vmservice.SCSIDisk{
					{Controller: 1, Lun: 2, HostPath: "/disks/ö.vhdx", Type: vmservice.DiskType_SCSI_DISK_TYPE_VHDX, ReadOnly: true},
					{},
				},
				NicConfig: []*vmservice.NICConfig{{
					NicId:      "c1",
					MacAddress: "12-34-56-78-9A-BC",
					Backend:    &vmservice.NICConfig_Tap{Tap: &vmservice.TapBackend{Source: &vmservice.TapBackend_Name{Name: "tap0"}}},
				}},
			},
			SerialConfig: &vmservice.SerialConfig{Ports: []*vmservice.SerialConfig_Config{{Port: 3, SocketPath: "/run/com4"}}},
			BootConfig:   &vmservice.VMConfig_DirectBoot{DirectBoot: &vmservice.DirectBoot{KernelPath: "/boot/k", KernelCmdline: "quiet"}},
			ExtraData:    map[string]string{"bothy.max_processors": "16"},
			GuestPowerActions: &vmservice.VMConfig_GuestPowerActions{
				Reset_: vmservice.VMConfig_RESTART,
			},
		},
	}
}

func show(message proto.Message, err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	text, err := (&jsonpb.Marshaler{OrigName: true}).MarshalToString(message)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(text)
}

func main() {
	socket, err := net.Dial("unix", os.Args[1])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	vm := vmservice.NewVMClient(ttrpc.NewClient(socket))
	ctx := context.Background()
	created, err := vm.CreateVM(ctx, request())
	show(created, err)
	capabilities, err := vm.CapabilitiesVM(ctx, &types.Empty{})
	show(capabilities, err)
	node, err := vm.InspectVM(ctx, &vmservice.InspectVMRequest{Query: "disks/0", RecursionLimit: 2})
	show(node, err)
	properties, err := vm.PropertiesVM(ctx, &vmservice.PropertiesVMRequest{
		Types: []vmservice.PropertiesVMRequest_PropertiesType{vmservice.PropertiesVMRequest_Processor},
	})
	show(properties, err)
	if _, err = vm.Quit(ctx, &types.Empty{}); err == nil {
		fmt.Println("Quit: no error")
	} else {
		fmt.Println(err)
	}
}

// Does with a VM service what containerd's Hyper-V shim does, in its order, with its ttrpc package:
//
//	shim_client SERVER SOCKET KERNEL INITRD CMDLINE MEMORY_MB PROCESSORS HOW
//
// starts SERVER with --ttrpc SOCKET, takes the end of its standard output for "ready", dials once,
// asks for capabilities, creates the VM, waits for it at once, resumes it, and then, as HOW says,
// tears it down while it runs ("stop") or lets the guest end first ("exit"). INITRD may be empty.
// Every step is a line on standard output; the first that goes wrong ends the program.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"strconv"

	"bothy/vmservice"

	"github.com/containerd/ttrpc"
	"github.com/gogo/protobuf/types"
)

// utilityVM is a VM of the shim's: its wait runs in the background from CreateVM on, on the same
// connection as everything else.
type utilityVM struct {
	client    vmservice.VMService
	waited    chan struct{}
	waitError error
}

func (vm *utilityVM) waitInBackground() {
	_, vm.waitError = vm.client.WaitVM(context.Background(), &types.Empty{})
	close(vm.waited)
}

func must(step string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", step, err)
	}
	fmt.Println(step)
}

func number(text string, bits int) uint64 {
	value, err := strconv.ParseUint(text, 10, bits)
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// startServer returns once the server has closed its standard output.
func startServer(program, address string) *exec.Cmd {
	server := exec.Command(program, "--ttrpc", address)
	server.Stderr = os.Stderr
	output, err := server.StdoutPipe()
	if err != nil {
		log.Fatal(err)
	}
	must("started", server.Start())
	_, err = io.Copy(io.Discard, output)
	must("ready", err)
	return server
}

func checkCapabilities(capabilities *vmservice.CapabilitiesVMResponse) {
	listed := map[vmservice.CapabilitiesVMResponse_Resource]bool{}
	for _, resource := range capabilities.SupportedResources {
		listed[resource.Resource] = true
	}
	for value, name := range vmservice.CapabilitiesVMResponse_Resource_name {
		if !listed[vmservice.CapabilitiesVMResponse_Resource(value)] {
			log.Fatalf("capabilities don't list %s", name)
		}
	}
	linux := false
	for _, guest := range capabilities.SupportedGuestOs {
		linux = linux || guest == vmservice.CapabilitiesVMResponse_Linux
	}
	if !linux {
		log.Fatal("capabilities don't list Linux")
	}
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 9 {
		log.Fatal("usage: shim_client SERVER SOCKET KERNEL INITRD CMDLINE MEMORY_MB PROCESSORS stop|exit")
	}
	address, how := os.Args[2], os.Args[8]
	config := &vmservice.VMConfig{
		MemoryConfig:    &vmservice.MemoryConfig{MemoryMb: number(os.Args[6], 64), AllowOvercommit: true},
		ProcessorConfig: &vmservice.ProcessorConfig{ProcessorCount: uint32(number(os.Args[7], 32))},
		DevicesConfig:   &vmservice.DevicesConfig{},
		SerialConfig:    &vmservice.SerialConfig{},
		ExtraData:       map[string]string{},
		BootConfig: &vmservice.VMConfig_DirectBoot{DirectBoot: &vmservice.DirectBoot{
			KernelPath: os.Args[3], InitrdPath: os.Args[4], KernelCmdline: os.Args[5]}},
	}

	server := startServer(os.Args[1], address)
	ctx := context.Background()
	connection, err := net.Dial("unix", address)
	must("dialled", err)
	client := ttrpc.NewClient(connection, ttrpc.WithOnClose(func() { connection.Close() }))
	vm := &utilityVM{client: vmservice.NewVMClient(client), waited: make(chan struct{})}

	capabilities, err := vm.client.CapabilitiesVM(ctx, &types.Empty{})
	must("capabilities", err)
	checkCapabilities(capabilities)
	_, err = vm.client.CreateVM(ctx, &vmservice.CreateVMRequest{Config: config, LogId: "shim-client"})
	must("created", err)
	go vm.waitInBackground()
	_, err = vm.client.ResumeVM(ctx, &types.Empty{})
	must("resumed", err)
	if how == "exit" {
		<-vm.waited
		must("waited", vm.waitError)
	}
	_, err = vm.client.TeardownVM(ctx, &types.Empty{})
	must("torn down", err)
	<-vm.waited
	must("waited", vm.waitError)

	// What is left when the shim's container is gone: its process ends with its job.
	client.Close()
	must("ended", server.Process.Kill())
	server.Wait()
}

// Does with a VM service what containerd's Hyper-V shim does, in its order, with its ttrpc package:
//
//	shim_client SERVER SOCKET KERNEL INITRD CMDLINE MEMORY_MB PROCESSORS HOW
//
// starts SERVER with --ttrpc SOCKET, takes the end of its standard output for "ready", dials once,
// asks for capabilities, creates the VM, waits for it at once, resumes it, and then, as HOW says,
// tears it down while it runs ("stop") or lets the guest end first ("exit"). INITRD may be empty.
// With "sockets" it listens beside SOCKET, ties ports 1, 109 and 0x40000000 to its listeners by
// service id before it resumes, talks to a guest that echoes on each, adds port 2000 while the guest
// runs, ends the connection to port 1, which the guest takes for the sign to connect to port 2000,
// tears the VM down and sees all connections end.
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
	"path/filepath"
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

// guestSockets are listeners for ports that the guest connects to, and the connections it made.
type guestSockets struct {
	vm        *utilityVM
	folder    string
	listeners map[uint32]net.Listener
	open      map[uint32]net.Conn
}

func (sockets *guestSockets) listen(port uint32) error {
	path := filepath.Join(sockets.folder, fmt.Sprintf("port-%d", port))
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if sockets.listeners == nil {
		sockets.listeners = map[uint32]net.Listener{}
	}
	sockets.listeners[port] = listener
	_, err = sockets.vm.client.VMSocket(context.Background(), &vmservice.VMSocketRequest{
		Type: vmservice.ModifyType_ADD,
		Config: &vmservice.VMSocketRequest_HvsocketList{HvsocketList: &vmservice.HVSocketListen{
			ServiceId: fmt.Sprintf("%08x-facb-11e6-bd58-64006a7986d3", port), ListenerPath: path}}})
	return err
}

// accept is the guest's connection to a port; a guest that has ended makes none.
func (sockets *guestSockets) accept(port uint32) (net.Conn, error) {
	accepted := make(chan struct{})
	defer close(accepted)
	go func() {
		select {
		case <-sockets.vm.waited:
			sockets.listeners[port].Close()
		case <-accepted:
		}
	}()
	return sockets.listeners[port].Accept()
}

// talk accepts the guest's connection to each port and has it give back what is said.
func (sockets *guestSockets) talk(ports ...uint32) {
	for _, port := range ports {
		connection, err := sockets.accept(port)
		if err == nil {
			sockets.open[port] = connection
			said := fmt.Sprintf("this is port %d", port)
			heard := make([]byte, len(said))
			if _, err = connection.Write([]byte(said)); err == nil {
				_, err = io.ReadFull(connection, heard)
			}
			if err == nil && string(heard) != said {
				err = fmt.Errorf("said %q, heard %q", said, heard)
			}
		}
		must(fmt.Sprintf("talked on port %d", port), err)
	}
}

func (sockets *guestSockets) seeTheEnd() error {
	for _, connection := range sockets.open {
		if rest, err := io.ReadAll(connection); err != nil || len(rest) != 0 {
			return fmt.Errorf("%d bytes instead of the end, %v", len(rest), err)
		}
	}
	return nil
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
		log.Fatal("usage: shim_client SERVER SOCKET KERNEL INITRD CMDLINE MEMORY_MB PROCESSORS stop|exit|sockets")
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
	sockets := &guestSockets{vm: vm, folder: filepath.Dir(address), open: map[uint32]net.Conn{}}
	if how == "sockets" {
		for _, port := range []uint32{1, 109, 0x40000000} {
			must(fmt.Sprintf("listening for port %d", port), sockets.listen(port))
		}
	}
	_, err = vm.client.ResumeVM(ctx, &types.Empty{})
	must("resumed", err)
	if how == "sockets" {
		sockets.talk(1, 109, 0x40000000)
		must("listening for port 2000", sockets.listen(2000))
		must("ended port 1", sockets.open[1].Close())
		delete(sockets.open, 1)
		sockets.talk(2000)
	}
	if how == "exit" {
		<-vm.waited
		must("waited", vm.waitError)
	}
	_, err = vm.client.TeardownVM(ctx, &types.Empty{})
	must("torn down", err)
	if how == "sockets" {
		must("closed", sockets.seeTheEnd())
	}
	<-vm.waited
	must("waited", vm.waitError)

	// What is left when the shim's container is gone: its process ends with its job.
	client.Close()
	must("ended", server.Process.Kill())
	server.Wait()
}

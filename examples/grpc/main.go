// Command grpc is a gRPC service that registers itself in Consul, with a health check by
// grpc.health.v1. greeter.py is the same in Python; instances of both can run at a time.
//
//	go run ./examples/grpc -port 9001
//	go run ./examples/grpc -port 9002
//	sluice run --config examples/grpc/sluice.yaml
//	grpcurl -plaintext -d '{"name": "you"}' -import-path examples/grpc -proto helloworld.proto 127.0.0.1:8080 helloworld.Greeter/SayHello
//
// Consul checks it every second. On SIGTERM or Ctrl-C it deregisters, goes on for a second
// (-goodbye, or until another signal), finishes its calls, and exits.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"sluice/examples/grpc/helloworld"
)

// The generated package is made by the plug-ins of Go's protobuf and gRPC:
//go:generate protoc -I. --go_out=. --go_opt=module=sluice/examples/grpc --go-grpc_out=. --go-grpc_opt=module=sluice/examples/grpc helloworld.proto

func main() {
	port := flag.Int("port", 0, "port to listen on; 0 is any free one")
	consul := flag.String("consul", "", "Consul's URL (default $CONSUL_HTTP_ADDR or http://127.0.0.1:8500)")
	goodbye := flag.Duration("goodbye", time.Second, "how long to go on after it has deregistered, until load balancers see the change")
	flag.Parse()

	if err := run(*port, *consul, *goodbye); err != nil {
		fmt.Fprintln(os.Stderr, "grpc:", err)
		os.Exit(1)
	}
}

const (
	address = "127.0.0.1"
	service = "greeter" // in Consul

	grace = 30 * time.Second // for calls to finish
)

// run serves until a signal comes.
func run(port int, consulURL string, goodbye time.Duration) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	// Listen before registering, so that the service is reachable when it is listed.
	listener, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err != nil {
		return err
	}
	port = listener.Addr().(*net.TCPAddr).Port
	id := fmt.Sprintf("%s-%d", service, port)

	server := grpc.NewServer()
	helloworld.RegisterGreeterServer(server, greeter{name: id})
	healthy := health.NewServer()
	healthy.SetServingStatus(helloworld.Greeter_ServiceDesc.ServiceName, grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(server, healthy)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer server.Stop()

	config := api.DefaultConfig() // reads CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN, …
	config.Address = cmp.Or(consulURL, config.Address)
	consul, err := api.NewClient(config)
	if err != nil {
		return err
	}
	if err := register(consul, id, port); err != nil {
		return err
	}
	fmt.Println(id, "serves and is registered")

	select {
	case err := <-served:
		return err
	case <-signals:
	}
	if err := consul.Agent().ServiceDeregister(id); err != nil {
		fmt.Fprintf(os.Stderr, "grpc: deregister %s: %v; Consul's check will notice\n", id, err)
	}
	select {
	case <-signals:
	case <-time.After(goodbye):
	}
	cut := time.AfterFunc(grace, server.Stop)
	defer cut.Stop()
	server.GracefulStop()
	return <-served
}

// register registers the service with a check by Consul, which removes it after the check has
// failed for a minute.
func register(consul *api.Client, id string, port int) error {
	at := net.JoinHostPort(address, strconv.Itoa(port))
	registration := &api.AgentServiceRegistration{
		ID:      id,
		Name:    service,
		Address: address,
		Port:    port,
		Check: &api.AgentServiceCheck{
			GRPC:                           at + "/" + helloworld.Greeter_ServiceDesc.ServiceName,
			Interval:                       "1s",
			Timeout:                        "5s",
			DeregisterCriticalServiceAfter: "1m",
		},
	}
	if err := consul.Agent().ServiceRegister(registration); err != nil {
		return fmt.Errorf("register %s in Consul: %w", id, err)
	}
	return nil
}

// greeter answers with its name.
type greeter struct {
	helloworld.UnimplementedGreeterServer
	name string
}

func (g greeter) SayHello(_ context.Context, in *helloworld.HelloRequest) (*helloworld.HelloReply, error) {
	return g.reply(in), nil
}

func (g greeter) SayHelloStreamReply(in *helloworld.HelloRequest, stream grpc.ServerStreamingServer[helloworld.HelloReply]) error {
	for range 5 {
		if err := stream.Send(g.reply(in)); err != nil {
			return err
		}
	}
	return nil
}

func (g greeter) reply(in *helloworld.HelloRequest) *helloworld.HelloReply {
	return &helloworld.HelloReply{Message: fmt.Sprintf("Hello %s from %s", in.Name, g.name)}
}

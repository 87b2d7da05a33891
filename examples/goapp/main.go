// Command goapp is a small web application that registers itself in Consul:
//
//	go run ./examples/goapp --port 9001
//	go run ./examples/goapp --port 9002
//	sluice run --service star
//
// Consul checks it every second. On SIGTERM or Ctrl-C it deregisters, finishes its
// requests, and exits. After SIGKILL Consul's check fails within a second.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"
)

func main() {
	var o options
	flag.StringVar(&o.name, "name", "star", "name of the service")
	flag.StringVar(&o.address, "address", "127.0.0.1", "IP address to listen on and to register")
	flag.IntVar(&o.port, "port", 0, "port to listen on; 0 is any free one")
	flag.StringVar(&o.consul, "consul", "", "Consul's URL (default $CONSUL_HTTP_ADDR or http://127.0.0.1:8500)")
	flag.Parse()

	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "goapp:", err)
		os.Exit(1)
	}
}

type options struct {
	name    string
	address string
	port    int
	consul  string
}

// goodbye is how long the app serves after it has deregistered, until load balancers
// see the change.
const goodbye = time.Second

// run serves until ctx ends.
func run(ctx context.Context, o options) error {
	// Listen before registering, so that the app is reachable when it is listed.
	listener, err := net.Listen("tcp", net.JoinHostPort(o.address, strconv.Itoa(o.port)))
	if err != nil {
		return err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	id := fmt.Sprintf("%s-%d", o.name, port)
	server := &http.Server{Handler: handler(id), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer server.Close()

	config := api.DefaultConfig() // reads CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN, …
	if o.consul != "" {
		config.Address = o.consul
	}
	consul, err := api.NewClient(config)
	if err != nil {
		return err
	}
	if err := register(ctx, consul, o, id, port); err != nil {
		return err
	}
	fmt.Printf("%s serves http://%s and is registered\n", id, listener.Addr())

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	if err := consul.Agent().ServiceDeregister(id); err != nil {
		fmt.Fprintf(os.Stderr, "goapp: deregister %s: %v; Consul's check will notice\n", id, err)
	}
	<-time.After(goodbye)
	finish, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := server.Shutdown(finish); err != nil {
		return fmt.Errorf("finish requests: %w", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	fmt.Println(id, "has ended")
	return nil
}

// register registers the app with a check in Consul. Consul removes the registration after
// the check has failed for DeregisterCriticalServiceAfter, but at least a minute.
func register(ctx context.Context, consul *api.Client, o options, id string, port int) error {
	registration := &api.AgentServiceRegistration{
		ID:      id,
		Name:    o.name,
		Address: o.address,
		Port:    port,
		Check: &api.AgentServiceCheck{
			HTTP:                           fmt.Sprintf("http://%s/health", net.JoinHostPort(o.address, strconv.Itoa(port))),
			Interval:                       "1s",
			Timeout:                        "5s",
			DeregisterCriticalServiceAfter: "5s",
		},
	}
	options := api.ServiceRegisterOpts{}.WithContext(ctx)
	if err := consul.Agent().ServiceRegisterOpts(registration, options); err != nil {
		return fmt.Errorf("register %s in Consul: %w", id, err)
	}
	return nil
}

func handler(id string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-App", id)
		fmt.Fprintf(w, "Hello from %s, process %d\n", id, os.Getpid())
	})
	return mux
}

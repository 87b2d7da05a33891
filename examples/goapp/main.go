// Command goapp is a small web application that registers itself in Consul, with package app:
//
//	go run ./examples/goapp --port 9001
//	go run ./examples/goapp --port 9002
//	sluice run --service star
//
// Consul checks it every second. On SIGTERM or Ctrl-C it deregisters, finishes its
// requests, and exits. After SIGKILL Consul's check fails within a second. It also runs
// without Consul, and is registered when Consul is there.
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

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/consul/app"
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

// run serves until ctx ends.
func run(ctx context.Context, o options) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(o.address, strconv.Itoa(o.port)))
	if err != nil {
		return err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	id := fmt.Sprintf("%s-%d", o.name, port)
	server := &http.Server{Handler: handler(o.name, id), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer server.Close()

	var client consul.Options // of the environment: CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN, …
	if o.consul != "" {
		client.Addresses = []string{o.consul}
	}
	registration, err := app.New(app.Options{
		Name: o.name, ID: id, Address: o.address, Port: port,
		Check:           app.Check{Type: app.HTTP, Path: "/health", Interval: time.Second, Timeout: 5 * time.Second},
		DeregisterAfter: time.Minute,
		Drain:           time.Second, // until load balancers have noticed
		Consul:          client,
		Log:             zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr}).Level(zerolog.InfoLevel).With().Timestamp().Logger(),
	})
	if err != nil {
		return err
	}
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	fmt.Printf("%s serves http://%s\n", id, listener.Addr())
	left := make(chan error, 1)
	go func() { left <- registration.Run(ctx) }()
	select {
	case err := <-served: // it cannot serve any more
		leave()
		registration.Cut() // no drain
		<-left
		return err
	case <-left: // it is deregistered, and the drain is over
	}
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
func handler(name, id string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		// Load balancers do not take a program that gets this port later for this one.
		w.Header().Set("X-Consul-Service", name+"/"+id)
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-App", id)
		fmt.Fprintf(w, "Hello from %s, process %d\n", id, os.Getpid())
	})
	return mux
}

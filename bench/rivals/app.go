//go:build linux

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
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"
)

// appCommand is the first argument of the process of an instance.
const appCommand = "app"

// service is the name under which instances register.
const service = "star"

// work is the duration of a request in an instance.
const work = 5 * time.Millisecond

// instanceField is the header field with the id of the instance.
const instanceField = "X-Instance"

// tags configure the routes of load balancers that read tags: the path of fabio, and the
// rule, retries and health checks of Traefik.
var tags = []string{
	"urlprefix-/",
	"traefik.enable=true",
	"traefik.http.routers.star.rule=PathPrefix(`/`)",
	"traefik.http.routers.star.middlewares=again",
	"traefik.http.middlewares.again.retry.attempts=3",
	"traefik.http.services.star.loadbalancer.healthcheck.path=/health",
	"traefik.http.services.star.loadbalancer.healthcheck.interval=1s",
	"traefik.http.services.star.loadbalancer.healthcheck.timeout=1s",
}

// app is an instance in a separate process. It registers at its start and on SIGUSR1, and
// leaves on SIGTERM.
type app struct {
	id       string
	consul   *api.Client
	farewell time.Duration // how long it serves after it has deregistered
}

// runApp serves until SIGTERM.
func runApp(args []string) error {
	var a app
	var address string
	flags := flag.NewFlagSet(appCommand, flag.ContinueOnError)
	flags.StringVar(&a.id, "id", "", "id of the instance")
	flags.StringVar(&address, "consul", "", "the agent's `host:port`")
	flags.DurationVar(&a.farewell, "farewell", 0, "how long to serve after deregistering")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if a.consul, err = api.NewClient(&api.Config{Address: address}); err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: a.handler(), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	port := listener.Addr().(*net.TCPAddr).Port
	if err := a.register(port); err != nil {
		return err
	}
	for {
		select {
		case err := <-served:
			return err
		case s := <-signals:
			if s == syscall.SIGTERM {
				return a.leave(server)
			}
			if err := a.register(port); err != nil {
				return err
			}
		}
	}
}

// register registers the instance as passing, and prints the time.
func (a *app) register(port int) error {
	begin := time.Now()
	err := a.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: a.id, Name: service, Address: "127.0.0.1", Port: port, Tags: tags,
		Check: &api.AgentServiceCheck{
			HTTP:     fmt.Sprintf("http://127.0.0.1:%d/health", port),
			Interval: "1s", Timeout: "1s", Status: api.HealthPassing,
		},
	})
	if err != nil {
		return fmt.Errorf("register %s: %w", a.id, err)
	}
	fmt.Println(registeredLine(begin))
	return nil
}

// leave deregisters and ends: after the farewell, or at the same moment.
func (a *app) leave(server *http.Server) error {
	var deregistration sync.WaitGroup
	var deregistered error
	deregistration.Go(func() { deregistered = a.consul.Agent().ServiceDeregister(a.id) })
	if a.farewell > 0 {
		deregistration.Wait()
		<-time.After(a.farewell)
	}
	finish, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	closed := server.Shutdown(finish)
	deregistration.Wait()
	return errors.Join(deregistered, closed)
}

func (a *app) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(work):
		case <-r.Context().Done():
			return
		}
		w.Header().Set(instanceField, a.id)
		fmt.Fprintln(w, "hello from", a.id)
	})
	return mux
}

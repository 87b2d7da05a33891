//go:build linux

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/consul"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
)

// watchCommand is the first argument of the process that watches.
const watchCommand = "watch"

// usage is what the watching process has used since its start.
type usage struct {
	consulsource.Stats
	CPU        time.Duration
	Goroutines int
	HeapBytes  uint64
}

// watch is the process that is measured. It prints the address at which it
// tells its usage, then a line for each set that Sink gets: its service, the
// instances in service, and the time in nanoseconds since 1970.
func watch(args []string) error {
	flags := flag.NewFlagSet(watchCommand, flag.ContinueOnError)
	addresses := flags.String("address", "", "`URLs` of Consul's agents, separated by commas")
	ca := flags.String("ca", "", "`file` with the certificates to trust")
	services := flags.Int("services", 1, "`number` of services")
	cached := flags.Bool("cached", false, "the agent may answer from its cache")
	profile := flags.String("profile", "", "write a CPU profile to `file` from the first call of /usage on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	log := zerolog.New(os.Stderr).Level(zerolog.WarnLevel)
	client, err := consul.New(consul.Options{
		Addresses: strings.Split(*addresses, ","),
		TLS:       consul.TLSOptions{ClientTLS: certificates.ClientTLS{CA: *ca}},
		Log:       log,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	sources := consulsource.NewSources(client, log)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var profiling sync.Once
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if *profile != "" {
			profiling.Do(func() {
				if f, err := os.Create(*profile); err == nil {
					_ = pprof.StartCPUProfile(f)
				}
			})
		}
		_ = json.NewEncoder(w).Encode(used(sources))
	})}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	fmt.Println(listener.Addr())

	m := discovery.NewManager(discovery.ManagerOptions{Debounce: discovery.Debounce{Quiet: 100 * time.Millisecond, MaxWait: time.Second}, Sink: func(set discovery.Set) {
		serving := 0
		for _, i := range set.Instances {
			if i.Serving() {
				serving++
			}
		}
		line := append([]byte(set.Service), ' ')
		line = strconv.AppendInt(line, int64(serving), 10)
		line = append(line, ' ')
		line = strconv.AppendInt(line, time.Now().UnixNano(), 10)
		_, _ = os.Stdout.Write(append(line, '\n')) // the parent died, if it fails
	}})
	for n := range *services {
		m.Watch(serviceName(n), sources.Source(consulsource.ServiceOptions{Service: serviceName(n), Cached: *cached, Wait: time.Minute, MinHealthy: 1, Probation: 10 * time.Minute}))
	}
	_ = m.Run(ctx) // ends with ctx
	pprof.StopCPUProfile()
	return nil
}

func used(sources *consulsource.Sources) usage {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // cannot fail with these arguments
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{
		Stats:      sources.Stats(),
		CPU:        time.Duration(r.Utime.Nano() + r.Stime.Nano()),
		Goroutines: runtime.NumGoroutine(),
		HeapBytes:  m.HeapAlloc,
	}
}

func serviceName(n int) string { return "service-" + strconv.Itoa(n) }

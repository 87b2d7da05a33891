package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"sluice/config"
	"sluice/gateway"
	"sluice/observe/panics"
	"sluice/proxy/handover"
	"sluice/proxy/handover/systemd"
	"sluice/proxy/socket"
)

func newRun() *cobra.Command {
	in := config.Input{Getenv: os.Getenv}
	var pidFile string
	command := &cobra.Command{
		Use:   "run [--config FILE | --service NAME | --tags DIALECT]",
		Short: "Serve requests",
		Long: "Serve the services of a configuration file or, without one, one Consul service, or\n" +
			"the services in Consul whose tags ask for routes, in the dialects fabio, traefik or\n" +
			"sluice. Without all of these, the file is " + usualFile + " if it\n" +
			"exists.\n\n" +
			"SIGHUP reloads the file, as does a change of it. SIGTERM and SIGINT let the\n" +
			"requests in flight finish; a second signal cuts them. SIGUSR2 replaces the process\n" +
			"with a new one from the current binary, without losing a request.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := os.Stat(usualFile); err == nil && in.File == "" && in.Service == "" && len(in.Tags) == 0 {
				in.File = usualFile
			}
			if err := in.CheckFlags(); err != nil {
				return &usageError{err}
			}
			return serve(cmd.Context(), in, pidFile, cmd.ErrOrStderr())
		},
	}
	flags := command.Flags()
	flags.StringVarP(&in.File, "config", "c", "", "configuration `file`")
	flags.StringVar(&in.Service, "service", "", "`name` of a Consul service that gets all requests, instead of a file")
	flags.StringSliceVar(&in.Tags, "tags", nil, "`dialects` of tags that ask for routes, instead of a file: fabio, traefik, sluice")
	flags.StringVar(&in.Listen, "listen", "", "`address` for clients (default :8080)")
	flags.StringVar(&in.Admin, "admin", "", "`address` of the admin API (default 127.0.0.1:8081)")
	flags.StringVar(&in.Consul, "consul", "", "`URL` of the Consul agent (default http://127.0.0.1:8500)")
	flags.StringVar(&pidFile, "pid-file", "", "`file` for the id of the serving process")
	return command
}

// serve runs a gateway until a signal or its replacement by a new process ends it.
func serve(ctx context.Context, in config.Input, pidFile string, log io.Writer) error {
	received := newSignals() // first, so that no early one is lost
	defer received.end()
	outliveReaders()

	manager, err := systemd.New()
	if err != nil {
		return err
	}
	h := handover.New(pidFile, manager, socket.Listen)
	defer h.Stop()
	g, err := gateway.New(gateway.Options{
		Input: in, Version: version(), Log: log,
		Listen: h.Listen, Release: h.Release, ListenPacket: h.ListenPacket, ReleasePacket: h.ReleasePacket, RequestState: h.RequestState, Former: h.AskFormer,
		Serving: h.Serving, Replaced: h.Replaced(), Systemd: manager,
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	var handling sync.WaitGroup
	handling.Go(func() {
		defer panics.Contain(panics.Task, nil)
		received.handle(ended, g, h, stop)
	})
	err = g.Run(ctx)
	close(ended)
	handling.Wait()
	return err
}

// outliveReaders keeps this process alive after the reader of its standard output or error has
// ended: what it writes there is lost. Go ends a process for such a write unless it has asked
// for SIGPIPE, also if its parent ignores the signal, as systemd does. Its children get SIGPIPE
// as ever.
func outliveReaders() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// signals are those that a process has received. One that waits stands for all of its kind.
type signals struct{ reload, replace, stop chan os.Signal }

func newSignals() signals {
	// The second stop ends open connections.
	s := signals{make(chan os.Signal, 1), make(chan os.Signal, 1), make(chan os.Signal, 2)}
	signal.Notify(s.reload, syscall.SIGHUP)
	signal.Notify(s.replace, syscall.SIGUSR2)
	signal.Notify(s.stop, syscall.SIGTERM, os.Interrupt)
	return s
}

func (s signals) end() {
	for _, c := range []chan os.Signal{s.reload, s.replace, s.stop} {
		signal.Stop(c)
	}
}

// handle handles signals until ended is closed.
func (s signals) handle(ended <-chan struct{}, g *gateway.Gateway, h *handover.Handover, stop func()) {
	var replacing sync.WaitGroup
	defer replacing.Wait()
	for stopping := false; ; {
		select {
		case <-ended:
			return
		case <-s.reload:
			g.Reload()
		case <-s.replace:
			replacing.Go(func() {
				defer panics.Contain(panics.Task, nil)
				g.ReplaceBy(func(give func(io.Writer) error) error { return h.Replace(give, g.Answer) })
			})
		case <-s.stop:
			if stopping {
				g.Cut()
				continue
			}
			stopping = true
			h.Stop() // first: a new process may have taken over just now
			stop()
		}
	}
}

// Sluice is a dynamic upstream load balancer driven by Consul. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"sluice/config"
	"sluice/gateway"
	"sluice/handover"
	"sluice/proxy"
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1 // it did not work; the reason is on standard error
	exitUsage  = 2 // the command line is wrong
	exitUnseen = 2 // doctor could not look
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes the command line and returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteC()
	if err == nil {
		return exitOK
	}
	if exit := new(exitError); errors.As(err, &exit) {
		if exit.err != nil {
			report(stderr, exit.err)
		}
		return exit.status
	}
	report(stderr, err)
	if usage := new(usageError); errors.As(err, &usage) || !command.Runnable() {
		fmt.Fprintf(stderr, "Run %q for help.\n", command.CommandPath()+" --help")
		return exitUsage
	}
	return exitFailed
}

// report writes err for people. Mistakes in a configuration begin with their
// place, FILE:LINE, as editors and other tools expect it.
func report(w io.Writer, err error) {
	var mistakes config.Errors
	if errors.As(err, &mistakes) {
		fmt.Fprintf(w, "%v\nsluice: mistakes in the configuration: %d\n", err, len(mistakes))
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintln(w, "sluice: "+line)
	}
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// exitError ends the program with a status of its own.
type exitError struct {
	status int
	err    error // nil: everything has been said
}

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d: %v", e.status, e.err) }

func (e *exitError) Unwrap() error { return e.err }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "An HTTP load balancer driven by Consul",
		Long: "sluice serves applications that register themselves in Consul: it follows\n" +
			"who comes, goes, fails and drains, without a reload.\n\n" +
			"  sluice run --service star          serve the Consul service \"star\" on :8080\n" +
			"  sluice run --config sluice.yaml    serve what a file says\n" +
			"  sluice peers --watch               who gets requests right now\n" +
			"  sluice doctor                      what is wrong in Consul's catalog",
		SilenceErrors: true, // run prints them, without the usage
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newRun(), newCheck(), newPeers(), newReplicas(), newDrain(), newEnable(), newDoctor(), newVersion())
	return root
}

// noArguments refuses what stands behind the flags.
func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

func newRun() *cobra.Command {
	in := config.Input{Getenv: os.Getenv}
	var pidFile string
	command := &cobra.Command{
		Use:   "run (--config FILE | --service NAME)",
		Short: "Serve until a signal ends it",
		Long: "Serve what a configuration file says or, without one, everything on one\n" +
			"address from one Consul service.\n\n" +
			"SIGHUP reloads the file, which also happens when it changes. SIGTERM and\n" +
			"SIGINT let the requests in flight finish; a second one cuts them. SIGUSR2\n" +
			"replaces the process by a new one, from the binary that is in its place by\n" +
			"then, without losing a request.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), in, pidFile, cmd.ErrOrStderr())
		},
	}
	flags := command.Flags()
	flags.StringVarP(&in.File, "config", "c", "", "configuration `file`")
	flags.StringVar(&in.Service, "service", "", "`name` of a Consul service that gets everything, instead of a file")
	flags.StringVar(&in.Listen, "listen", "", "`address` for clients (default :8080)")
	flags.StringVar(&in.Admin, "admin", "", "`address` of the admin API (default 127.0.0.1:8081)")
	flags.StringVar(&in.Consul, "consul", "", "`URL` of the Consul agent (default http://127.0.0.1:8500)")
	flags.StringVar(&pidFile, "pid-file", "", "`file` that holds the id of the process that serves")
	return command
}

// serve runs a gateway until a signal ends it, or a new process replaces it.
func serve(ctx context.Context, in config.Input, pidFile string, log io.Writer) error {
	// Before anything else: a signal that arrives early is not lost.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGUSR2, os.Interrupt)
	defer signal.Stop(signals)

	h := handover.New(pidFile, proxy.Listen)
	defer h.Stop()
	g, err := gateway.New(gateway.Options{
		Input: in, Version: version(), Log: log,
		Listen: h.Listen, Inherit: h.Inherit,
		Serving: h.Serving, Replaced: h.Replaced(),
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan struct{})
	var handling sync.WaitGroup
	handling.Go(func() { handle(signals, ended, g, h, stop) })
	err = g.Run(ctx)
	close(ended)
	handling.Wait()
	return err
}

// handle does what the signals ask for, until ended is closed.
func handle(signals <-chan os.Signal, ended <-chan struct{}, g *gateway.Gateway, h *handover.Handover, stop func()) {
	var replacing sync.WaitGroup
	defer replacing.Wait()
	stopping := false
	for {
		select {
		case <-ended:
			return
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP:
				g.Reload()
			case s == syscall.SIGUSR2:
				replacing.Go(func() { g.ReplaceBy(h.Replace) })
			case !stopping:
				stopping = true
				stop()
				h.Stop()
			default:
				g.Cut()
			}
		}
	}
}

func newCheck() *cobra.Command {
	in := config.Input{Getenv: os.Getenv}
	command := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Say whether a configuration file is right",
		Long: "Load a configuration file as run would, with the environment, and change\n" +
			"nothing. All mistakes are shown, each with file and line, key, value and what\n" +
			"is allowed. The exit status is 0 if there are none and 1 otherwise.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if in.File == "" {
				return &usageError{errors.New("--config FILE is missing")}
			}
			r, err := in.Load()
			if err != nil {
				return err
			}
			for _, warning := range r.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), warning)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is right: listeners %d, services %d, routes %d\n",
				in.File, len(r.Config.Listeners), len(r.Config.Services), len(r.Config.Routes))
			return nil
		},
	}
	command.Flags().StringVarP(&in.File, "config", "c", "", "configuration `file`")
	return command
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print which sluice this is",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "sluice %s (%s, %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// version is the module's version or, in a build from a checkout, its commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	settings := make(map[string]string, len(info.Settings))
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	commit := settings["vcs.revision"]
	if commit == "" {
		return "devel"
	}
	commit = "devel-" + commit[:min(12, len(commit))]
	if settings["vcs.modified"] == "true" {
		commit += "-modified"
	}
	return commit
}

func init() {
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
}

// Package cli is sluice's command line: a file for each command.
package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"sluice/config"
	"sluice/observe/logs"
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1 // the reason is on standard error
	exitUsage  = 2 // invalid command line
	exitUnseen = 2 // doctor could not examine the catalog
)

// Run executes a command line, without the program's name, and returns the exit status.
func Run(args []string, stdout, stderr io.Writer) int {
	root := NewRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteC()
	if err == nil {
		return exitOK
	}
	if exit := new(exitError); errors.As(err, &exit) {
		if exit.err != nil {
			report(stderr, exit.err, false)
		}
		return exit.status
	}
	report(stderr, err, command.Name() == "check" || logs.IsTerminal(stderr))
	if usage := new(usageError); errors.As(err, &usage) || !command.Runnable() {
		fmt.Fprintf(stderr, "Run %q for help.\n", command.CommandPath()+" --help")
		return exitUsage
	}
	return exitFailed
}

// report writes err for people. Errors of a configuration begin with FILE:LINE, as
// editors expect, and have the lines below them if quoting is true: a log never has them.
func report(w io.Writer, err error, quoting bool) {
	if mistakes, ok := errors.AsType[config.Errors](err); ok {
		for _, m := range mistakes {
			fmt.Fprintln(w, m)
			if quoting {
				fmt.Fprint(w, quoted(m.Place()))
			}
		}
		fmt.Fprintf(w, "sluice: errors in the configuration: %d\n", len(mistakes))
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if line != "" { // cobra's suggestions have empty ones
			fmt.Fprintln(w, "sluice: "+line)
		}
	}
}

// usageError is an error in the command line.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// exitError sets the exit status.
type exitError struct {
	status int
	err    error // nil: already reported
}

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d: %v", e.status, e.err) }

func (e *exitError) Unwrap() error { return e.err }

// NewRoot returns the command line, also for its manual.
func NewRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "A load balancer for HTTP, gRPC and TCP, driven by Consul",
		Long: "sluice is a load balancer for applications that are registered in Consul. It\n" +
			"follows registrations, health checks and drains without a reload.\n\n" +
			"  sluice run --service star          serve the Consul service \"star\" on :8080\n" +
			"  sluice run --config sluice.yaml    serve the services of a file\n" +
			"  sluice peers --watch               show the peers live: --sort latency, state, …\n" +
			"  sluice events --follow             show what happens, as it happens\n" +
			"  sluice route URL                   show which route a request would get, and why\n" +
			"  sluice doctor                      find problems in Consul's catalog\n" +
			"  sluice register … -- COMMAND       run an app that is registered in Consul\n" +
			"  sluice roll … -- COMMAND           run a command for each instance in turn, drained",
		SilenceErrors: true, // Run prints them, without the usage
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(newRun(), newCheck(), newConfig(), newExplain(), newImport(), newHashPassword(), newPeers(), newRoute(), newTags(), newReplicas(), newEvents(), newShares(), newRegister(), newRoll(), newDrain(), newEnable(), newWeight(), newMaintenance(), newOrders(), newReady(), newLog(), newDoctor(), newVersion())
	return root
}

func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

// oneArgument accepts one argument. want is the error for fewer or more.
func oneArgument(want string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return &usageError{errors.New(want)}
		}
		return nil
	}
}

func init() {
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
}

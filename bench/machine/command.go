package machine

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// RunCommand runs the command of this process with its arguments, until it ends or a signal asks
// for that. It then ends the process, after it has printed the error. name is that of the command.
func RunCommand(name string, run func(ctx context.Context, args []string) error) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	Exit(name, run(ctx, os.Args[1:]))
}

// Exit ends the process, after it has printed err. The usage, which has been printed, is no error.
func Exit(name string, err error) {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, name+":", err)
	os.Exit(1)
}

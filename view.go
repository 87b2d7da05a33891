package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// view is how a command shows what the admin API says: a table once or again
// and again, or the answer as it is.
type view struct{ watch, asJSON bool }

func (v *view) addFlags(c *cobra.Command) {
	flags := c.Flags()
	flags.BoolVarP(&v.watch, "watch", "w", false, "show them again every second, until Ctrl-C")
	flags.BoolVar(&v.asJSON, "json", false, "print the API's answer as it is")
}

// run shows the answer that get returns, or the table that show writes.
func (v view) run(ctx context.Context, out io.Writer, get func(context.Context) ([]byte, error), show showFunc) error {
	switch {
	case v.asJSON:
		body, err := get(ctx)
		if err == nil {
			_, err = out.Write(body)
		}
		return err
	case v.watch:
		return redraw(ctx, out, show)
	}
	return show(ctx, out, time.Now)
}

// showFunc writes a table once.
type showFunc func(ctx context.Context, out io.Writer, now func() time.Time) error

// redraw has show write a table every second until ctx ends. While sluice does
// not answer it says so and goes on.
func redraw(ctx context.Context, out io.Writer, show showFunc) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var screen strings.Builder
		screen.WriteString("\x1b[H\x1b[2J") // cursor home, clear
		if err := show(ctx, &screen, time.Now); ctx.Err() != nil {
			return nil
		} else if err != nil {
			fmt.Fprintf(&screen, "%v\n", err)
		}
		if _, err := io.WriteString(out, screen.String()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

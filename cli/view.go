package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// view is the output of a command: a table, once or repeatedly, or JSON.
type view struct{ watch, asJSON bool }

func (v *view) addFlags(c *cobra.Command) {
	flags := c.Flags()
	flags.BoolVarP(&v.watch, "watch", "w", false, "repeat every second, until Ctrl-C")
	flags.BoolVar(&v.asJSON, "json", false, "print the API's answer")
}

// run writes the answer of get, or the table of show.
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

// redraw writes a table every second until ctx ends. Errors are shown and do not end
// it.
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

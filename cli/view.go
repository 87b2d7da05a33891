package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sluice/observe/wake"
)

// view is how a command looks at a running sluice, and how it shows what it finds: a table, once or
// repeatedly, or the answer of the API.
type view struct {
	api
	watch, asJSON bool
}

func (v *view) addFlags(c *cobra.Command) {
	flags := c.Flags()
	flags.BoolVarP(&v.watch, "watch", "w", false, "repeat every second, until Ctrl-C")
	v.addJSONFlag(c)
}

func (v *view) addJSONFlag(c *cobra.Command) {
	v.api.addFlags(c)
	c.Flags().BoolVar(&v.asJSON, "json", false, "print the API's answer")
}

// query is a question to the admin API. T is what the answer decodes into.
type query[T any] struct {
	*api
	path  string // escaped
	query url.Values
	write func(out io.Writer, answer T, now time.Time) error // writes the table
}

func (q query[T]) get(ctx context.Context) (T, error) {
	var answer T
	return answer, q.askJSON(ctx, http.MethodGet, q.path, q.query, &answer)
}

// show completes c, which shows the answer of the admin API at a path.
func show[T any](c *cobra.Command, path string, write func(out io.Writer, answer T, now time.Time) error) *cobra.Command {
	var v view
	c.Args = noArguments
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		return look(cmd, v, query[T]{api: &v.api, path: path, write: write})
	}
	v.addFlags(c)
	return c
}

// look shows the answer of q as v wants it, for cmd, until a signal ends the command.
func look[T any](cmd *cobra.Command, v view, q query[T]) error {
	return lookAt(cmd, v, q, func(ctx context.Context, out io.Writer) error {
		answer, err := q.get(ctx)
		if err != nil {
			return err
		}
		return q.write(out, answer, time.Now())
	})
}

// lookAt is look with a table that show writes: it may ask more than q.
func lookAt[T any](cmd *cobra.Command, v view, q query[T], show func(context.Context, io.Writer) error) error {
	if v.watch && v.asJSON {
		return &usageError{errors.New("--watch and --json exclude each other")}
	}
	ctx, stop := untilSignal(cmd)
	defer stop()
	switch out := cmd.OutOrStdout(); {
	case v.asJSON:
		body, err := q.ask(ctx, http.MethodGet, q.path, q.query)
		if err == nil {
			_, err = out.Write(body)
		}
		return err
	case v.watch:
		return redraw(ctx, out, func(out io.Writer) error { return show(ctx, out) })
	default:
		return show(ctx, out)
	}
}

// newTable returns a table with these titles, whose columns are parted by tabs. It is written by
// Flush.
func newTable(out io.Writer, titles string) *tabwriter.Writer {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, titles)
	return table
}

// untilSignal returns a context for a command that a signal ends.
func untilSignal(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
}

// redraw writes a table every second until ctx ends. Errors are shown and do not end
// it.
func redraw(ctx context.Context, out io.Writer, show func(io.Writer) error) error {
	err := wake.Repeat(ctx, time.Second, func() (bool, error) {
		var screen strings.Builder
		if err := show(&screen); ctx.Err() != nil {
			return true, nil
		} else if err != nil {
			fmt.Fprintf(&screen, "%v\n", err)
		}
		_, err := io.WriteString(out, clearScreen+fit(screen.String(), heightOf(out))+wrapLines)
		return false, err
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Control sequences of terminals (ECMA-48, and DEC's private modes).
const (
	clearScreen = "\x1b[?7l\x1b[H\x1b[2J" // cuts long lines, cursor home, clear
	wrapLines   = "\x1b[?7h"              // ends the cutting
)

// heightOf returns the number of lines of a terminal, or 0 if out is none.
func heightOf(out io.Writer) int {
	if f, ok := out.(*os.File); ok {
		_, height, _ := term.GetSize(int(f.Fd())) // 0 with an error
		return height
	}
	return 0
}

// fit leaves out the last lines of a text that has more than a screen of that height, and says
// how many. The cursor needs a line, too.
func fit(text string, height int) string {
	lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	if height < 3 || len(lines) < height {
		return text
	}
	return strings.Join(lines[:height-2], "") + fmt.Sprintf("… %d more lines\n", len(lines)-height+2)
}

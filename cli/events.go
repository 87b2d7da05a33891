package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/admin"
	"sluice/cli/terminal"
	"sluice/observe/events"
	"sluice/observe/wake"
)

const (
	// eventsRetry is the time between two attempts to follow events again.
	eventsRetry = 500 * time.Millisecond

	// eventsSilence is how long a stream may have no byte: three heartbeats.
	eventsSilence = 3 * admin.EventsHeartbeat
)

// eventsQuery reads the events of a running sluice.
type eventsQuery struct {
	view
	services []string // empty: all
	kinds    []string // empty: all
	limit    int      // of the kept events; 0: all
	out      io.Writer

	last string // id of the latest event that has been read; "": none
}

func newEvents() *cobra.Command {
	var q eventsQuery
	var follow bool
	command := &cobra.Command{
		Use:   "events",
		Short: "Show what has happened in the last hour",
		Long: "Show what has happened in a running sluice in the last hour: to peers, services,\n" +
			"the configuration, and Consul. With --follow, also what happens from now on, until\n" +
			"Ctrl-C, across restarts and replacements of sluice.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("limit") && q.limit < 1 {
				return &usageError{fmt.Errorf("--limit %d: want at least 1", q.limit)}
			}
			if q.limit > 0 && q.last != "" {
				return &usageError{errors.New("--limit and --after exclude each other")}
			}
			q.out = cmd.OutOrStdout()
			if !follow {
				return look(cmd, q.view, query[[]events.Event]{api: &q.api, path: "/api/events", query: q.values("json"), write: q.writeAll})
			}
			ctx, stop := untilSignal(cmd)
			defer stop()
			return q.follow(ctx, cmd.ErrOrStderr())
		},
	}
	q.api.addFlags(command)
	flags := command.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "go on with what happens, until Ctrl-C")
	flags.StringArrayVar(&q.services, "service", nil, "only events of this `service`; may be repeated")
	flags.StringArrayVar(&q.kinds, "kind", nil, "only events of this `kind`, such as peer.ejected, or of a group of kinds, such as peer; may be repeated")
	flags.IntVar(&q.limit, "limit", 0, "begin with the latest `n` events instead of the last hour")
	flags.StringVar(&q.last, "after", "", "begin after the event with this `id`, which --json shows: the last one that was handled")
	flags.BoolVar(&q.asJSON, "json", false, "print the API's answer; with --follow one object on each line")
	return command
}

func (q *eventsQuery) values(format string) url.Values {
	values := url.Values{"service": q.services, "kind": q.kinds, "format": {format}}
	if q.limit > 0 && q.last == "" { // later, nothing is left out
		values.Set("limit", fmt.Sprint(q.limit))
	}
	if q.last != "" {
		values.Set("after", q.last)
	}
	return values
}

// writeAll writes the events that sluice has kept.
func (q *eventsQuery) writeAll(out io.Writer, list []events.Event, _ time.Time) error {
	for _, e := range list {
		if err := q.write(e); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "no events")
		return err
	}
	return nil
}

func (q *eventsQuery) write(e events.Event) error {
	mark := " "
	if e.Level == events.Warning {
		mark = "!"
	}
	_, err := fmt.Fprintf(q.out, "%s %s %-18s %-12s %s\n", e.Time.Local().Format("15:04:05"), mark, printable(string(e.Kind)), printable(cmp.Or(e.Service, "-")), terminal.PrintableLong(e.Text))
	return err
}

// follow writes the kept events and later ones, until ctx ends. After the first answer it asks
// again if sluice does not answer, and goes on after the latest event. It writes to problems when
// the stream is interrupted.
func (q *eventsQuery) follow(ctx context.Context, problems io.Writer) error {
	for answered, interrupted := false, false; ; {
		again, err := q.stream(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case !again, err != nil && !answered:
			return err
		case err != nil && !interrupted:
			fmt.Fprintf(problems, "sluice: %v; asking again until Ctrl-C\n", err)
		}
		answered, interrupted = true, err != nil
		if wake.Await(ctx, time.After(eventsRetry)) != nil {
			return nil
		}
	}
}

// stream writes the events of one answer. again reports whether asking again may help; err is nil
// if there was an answer, and it has ended.
func (q *eventsQuery) stream(ctx context.Context) (again bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(eventsSilence, cancel)
	defer silence.Stop()
	request, err := q.request(ctx, http.MethodGet, "/api/events", q.values("sse"))
	if err != nil {
		return false, err
	}
	response, err := q.send(request)
	if err != nil {
		answer := refusal{}
		return !errors.As(err, &answer) || answer.status >= http.StatusInternalServerError, err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	id, data := "", ""
	for lines.Scan() {
		silence.Reset(eventsSilence)
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case name == "id":
			id = value
		case name == "data":
			data = value
		case name == "" && data != "": // the end of an event
			if err := q.writeData(data); err != nil {
				return false, err
			}
			data, q.last = "", cmp.Or(id, q.last)
		}
	}
	return true, nil // what was cut off comes again
}

// writeData writes an event as the API has sent it.
func (q *eventsQuery) writeData(data string) error {
	if q.asJSON {
		_, err := fmt.Fprintln(q.out, data)
		return err
	}
	var e events.Event
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return fmt.Errorf("admin API at %s: not an event: %w", q.address, err)
	}
	return q.write(e)
}

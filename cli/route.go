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
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/admin"
)

// routeQuery asks a running sluice which route a request would get.
type routeQuery struct {
	api
	method, url      string
	headers          []string
	client, listener string
	all              bool
}

// errNoRoute is the error for a request without a route.
var errNoRoute = errors.New("no route matches: sluice answers 404")

func newRoute() *cobra.Command {
	var q routeQuery
	var asJSON bool
	command := &cobra.Command{
		Use:   "route [METHOD] URL",
		Short: "Show which route a request would get, and why",
		Long: "Show which route of a running sluice a request would get, which others match its\n" +
			"host and path, in the order in which they are tried, and why they do not get it.\n" +
			"No request is sent. The exit status is 0 if there is a route, else 1.\n\n" +
			"  sluice route http://www.example.com/api\n" +
			"  sluice route POST https://www.example.com/api -H 'X-Canary: 1' --client 10.0.0.1",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch len(args) {
			case 1:
				q.method, q.url = http.MethodGet, args[0]
			case 2:
				q.method, q.url = args[0], args[1]
			default:
				return &usageError{errors.New("want a URL, or a method and a URL")}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return view{asJSON: asJSON}.run(ctx, cmd.OutOrStdout(), q.get, q.show)
		},
	}
	q.addFlags(command)
	flags := command.Flags()
	flags.StringArrayVarP(&q.headers, "header", "H", nil, "header `field` of the request, \"NAME: VALUE\"; may be repeated")
	flags.StringVar(&q.client, "client", "", "`address` of the client")
	flags.StringVar(&q.listener, "listener", "", "`name` of the listener that gets the request")
	flags.BoolVar(&q.all, "all", false, "show the routes for other hosts and paths too")
	flags.BoolVar(&asJSON, "json", false, "print the API's answer")
	return command
}

func (q routeQuery) get(ctx context.Context) ([]byte, error) {
	return q.ask(ctx, http.MethodGet, "/api/route", url.Values{
		"method": {q.method}, "url": {q.url}, "header": q.headers, "client": {q.client}, "listener": {q.listener},
		"all": {strconv.FormatBool(q.all)},
	})
}

func (q routeQuery) show(ctx context.Context, out io.Writer, _ func() time.Time) error {
	body, err := q.get(ctx)
	if err != nil {
		return err
	}
	var answer admin.RouteAnswer
	if err := q.decode(body, &answer); err != nil {
		return err
	}
	if err := writeRoute(out, answer); err != nil {
		return err
	}
	if answer.Route == nil {
		return errNoRoute
	}
	return nil
}

func writeRoute(out io.Writer, answer admin.RouteAnswer) error {
	if r := answer.Route; r != nil {
		group := ""
		switch {
		case answer.Group != "":
			group = ", group " + printable(answer.Group)
		case r.Split != nil:
			group = ", one of its groups by chance"
		}
		fmt.Fprintf(out, "service %s%s, by the route at %s\n", printable(r.Service), group, printable(r.Origin))
		if m := r.Mirror; m != nil {
			fmt.Fprintf(out, "copies of %.4g %% of the requests go to %s\n", 100*m.Share, printable(mirrorName(m)))
		}
		fmt.Fprintln(out)
	}
	if len(answer.Candidates) > 0 {
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "PLACE\tHOST\tPATH\tMATCH\tPRIORITY\tSERVICE\tORIGIN\tRESULT")
		for _, c := range answer.Candidates {
			host := c.Host
			switch {
			case c.HostRegexp != "":
				host = "~" + c.HostRegexp
			case host == "":
				host = "any"
			}
			fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", c.Place, printable(host), printable(c.Path), c.Match, c.Priority,
				printable(c.Service), printable(c.Origin), printableWhy(resultOf(c)))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	var others []string
	if answer.OtherHost > 0 {
		others = append(others, fmt.Sprintf("%d for other hosts", answer.OtherHost))
	}
	if answer.OtherPath > 0 {
		others = append(others, fmt.Sprintf("%d for other paths", answer.OtherPath))
	}
	if len(others) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "\nroutes that do not match: %s\n", strings.Join(others, ", "))
	return err
}

// mirrorName names the target of copies for people.
func mirrorName(m *admin.Mirror) string {
	if m.Group == "" {
		return "service " + m.Service
	}
	return "service " + m.Service + ", group " + m.Group
}

// resultOf describes for people why a route gets the request or not.
func resultOf(c admin.Candidate) string {
	switch c.Outcome {
	case "chosen":
		return "chosen"
	case "later":
		return "matches, but a route before it is chosen"
	case "condition":
		return "only if " + c.Failing
	}
	return "other " + c.Outcome
}

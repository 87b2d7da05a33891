package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/admin"
	"sluice/cli/terminal"
)

// routeRequest is the request whose route is asked for.
type routeRequest struct {
	method, url      string
	headers          []string
	certificate      []string // names of the client's certificate
	client, listener string
	all              bool // also the routes for other hosts and paths
}

func newRoute() *cobra.Command {
	var v view
	var r routeRequest
	var against string
	command := &cobra.Command{
		Use:   "route [METHOD] URL | route --against FILE",
		Short: "Show what would become of a request, and why",
		Long: "Show what would become of a request: which peers of a running sluice may get it, or\n" +
			"with which status sluice answers itself, and what that depends on; which route it\n" +
			"gets, and which others match its host and path, in the order in which they are tried.\n" +
			"No request is sent. The exit status is 1 if sluice refuses the request, else 0.\n\n" +
			"  sluice route http://www.example.com/api\n" +
			"  sluice route POST https://www.example.com/api -H 'X-Canary: 1' --client 10.0.0.1\n" +
			"  sluice route --against new.yaml\n\n" +
			"With --against show which requests of the last hour would be served otherwise with\n" +
			"another configuration file. They are a sample of each route. The exit status is 1 if\n" +
			"sluice would refuse some that it serves now.",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case against != "" && (len(args) > 0 || v.watch):
				return &usageError{errors.New("--against is about the requests of the last hour: want no URL, and no --watch")}
			case against != "":
				return tryText(cmd, v, against, "")
			}
			switch len(args) {
			case 1:
				r.method, r.url = http.MethodGet, args[0]
			case 2:
				r.method, r.url = args[0], args[1]
			default:
				return &usageError{errors.New("want a URL, or a method and a URL")}
			}
			return look(cmd, v, query[admin.RouteAnswer]{api: &v.api, path: "/api/route", query: r.values(), write: writeRoute})
		},
	}
	v.addFlags(command)
	flags := command.Flags()
	flags.StringArrayVarP(&r.headers, "header", "H", nil, "header `field` of the request, \"NAME: VALUE\"; may be repeated")
	flags.StringVar(&r.client, "client", "", "`address` of the client")
	flags.StringArrayVar(&r.certificate, "certificate", nil, "`name` of the client's certificate: any, cn=NAME, dns=NAME, uri=URI or sha256=HEX; may be repeated")
	flags.StringVar(&r.listener, "listener", "", "`name` of the listener that gets the request; without it the first for the scheme of the URL, of those at its port if there are any")
	flags.BoolVar(&r.all, "all", false, "show the routes for other hosts and paths too")
	flags.StringVar(&against, "against", "", "configuration `file` to try, in place of the one in use")
	return command
}

func (r routeRequest) values() url.Values {
	return url.Values{
		"method": {r.method}, "url": {r.url}, "header": r.headers, "client": {r.client}, "certificate": r.certificate, "listener": {r.listener},
		"all": {strconv.FormatBool(r.all)},
	}
}

// writeRoute returns an error if sluice refuses the request.
func writeRoute(out io.Writer, answer admin.RouteAnswer, _ time.Time) error {
	var refused error
	for _, e := range answer.Ends {
		writeEnd(out, answer, e)
		if a := e.Answer; a != nil && a.Status >= 400 && a.Reason != "direct_response" {
			refused = fmt.Errorf("sluice answers %d: %s", a.Status, a.Reason)
		}
	}
	if len(answer.OtherListeners) > 0 {
		fmt.Fprintf(out, "at listener %s; --listener asks another one: %s\n", printable(answer.Listener), printable(strings.Join(answer.OtherListeners, ", ")))
	}
	if r := answer.Route; r != nil {
		if err := writeWeighted(out, r.Weighted); err != nil {
			return err
		}
		if len(answer.Ends) > 0 && answer.Ends[0].Branch != nil {
			if err := writeWeighted(out, answer.Ends[0].Branch.Weighted); err != nil {
				return err
			}
		}
		if m := r.Mirror; m != nil {
			fmt.Fprintf(out, "copies of %.4g %% of the requests go to %s\n", 100*m.Share, printable(mirrorName(m)))
		}
	}
	if len(answer.Candidates) > 0 {
		fmt.Fprintln(out)
		table := newTable(out, "PLACE\tHOST\tPATH\tMATCH\tPRIORITY\tSERVICE\tORIGIN\tRESULT")
		for _, c := range answer.Candidates {
			host := c.Host
			switch {
			case c.HostRegexp != "":
				host = "~" + c.HostRegexp
			case host == "":
				host = "any"
			}
			fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", c.Place, printable(host), printable(c.Path), c.Match, c.Priority,
				printable(serviceOf(c.Route)), printable(c.Origin), printableWhy(resultOf(c)))
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
	if len(others) > 0 {
		fmt.Fprintf(out, "\nroutes that do not match: %s\n", strings.Join(others, ", "))
	}
	return refused
}

// writeEnd writes what becomes of a request, and what it depends on.
func writeEnd(out io.Writer, answer admin.RouteAnswer, e admin.End) {
	if len(answer.Ends) > 1 {
		fmt.Fprintf(out, "%.4g %%: ", 100*e.Share)
	}
	what, by := "service "+e.Service, "the route at "
	if answer.Route == nil {
		by = "listener " + answer.Listener
	} else {
		by += answer.Route.Origin
	}
	if e.Branch != nil {
		by += " and by " + e.Branch.Origin
	}
	switch a := e.Answer; {
	case a != nil && a.Location != "":
		what = fmt.Sprintf("%d to %s", a.Status, a.Location)
	case a != nil:
		what = answerText(a)
	case e.Group != "":
		what += ", group " + e.Group
	}
	fmt.Fprintln(out, terminal.Printable(what+", by "+by, 500))
	switch n := len(e.Peers); {
	case n > 20:
		fmt.Fprintf(out, "to one of %d peers\n", n)
	case n > 0:
		fmt.Fprintf(out, "to one of its peers: %s\n", terminal.Printable(strings.Join(e.Peers, ", "), 500))
	}
	for i, d := range e.Depends {
		if i == 0 {
			fmt.Fprintln(out, "then it depends on, in this order:")
		}
		fmt.Fprintf(out, "  %s\n", printableWhy(answerText(&d)))
	}
}

// answerText describes an answer of sluice's own, whose status may not be known before.
func answerText(a *admin.Answer) string {
	return strings.TrimPrefix(fmt.Sprintf("%d %s: %s", a.Status, a.Reason, a.Text), "0 ")
}

// writeWeighted writes how the requests of a route are divided among services, if they are.
func writeWeighted(out io.Writer, w *admin.Weighted) error {
	if w == nil {
		return nil
	}
	share := "SHARE"
	if w.ByPeers {
		share = "SHARE OF A PEER"
	}
	table := newTable(out, "\nSERVICE\tGROUP\t"+share+"\tPEERS\tSHARE NOW\tORIGIN")
	for _, t := range w.Targets {
		asked := fmt.Sprintf("%.4g %%", 100*t.Share)
		if w.ByPeers && t.Share == 0 {
			asked = "what is left"
		}
		group := t.Group
		switch {
		case t.Split != nil:
			group = "by its split"
		case group == "":
			group = "all"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%.4g %%\t%s\n", printable(t.Service), printable(group), asked, t.UsablePeers, 100*t.Present, printable(t.Origin))
	}
	return table.Flush()
}

// serviceOf names the service of a route, or its services, for people.
func serviceOf(r admin.Route) string {
	if r.Weighted == nil {
		return r.Service
	}
	var names []string
	for _, t := range r.Weighted.Targets {
		if !slices.Contains(names, t.Service) {
			names = append(names, t.Service)
		}
	}
	return strings.Join(names, ", ")
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

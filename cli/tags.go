package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/admin"
	"sluice/cli/terminal"
)

func newTags() *cobra.Command {
	var v view
	command := &cobra.Command{
		Use:   "tags [SERVICE]",
		Short: "Show what the tags of services ask for, what is used, and why not",
		Long: "Show the tags of the services of a running sluice that ask for routes: used as they\n" +
			"are, used in part, or unused. WHY names what is wrong or which key of the file is\n" +
			"missing. A route that could not keep out whom a tag wants to answers 403 tag_denied.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{fmt.Errorf("want one service, not %d", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			write := func(out io.Writer, routes []admin.Route, _ time.Time) error {
				return writeTags(out, tagsOf(routes, strings.Join(args, "")))
			}
			return look(cmd, v, query[[]admin.Route]{api: &v.api, path: "/api/routes", write: write})
		},
	}
	v.addFlags(command)
	return command
}

// askingTag is what became of a tag that asks for routes.
type askingTag struct {
	service, tag string
	used         bool // it has a route
	why          []string
}

// tagsOf returns the tags that ask for routes, of one service, or of all if it is "".
func tagsOf(routes []admin.Route, service string) (all []askingTag) {
	at := make(map[[2]string]int)
	add := func(ask admin.TagAsk, used bool, problems []admin.TagProblem) {
		key := [2]string{ask.Service, ask.Tag}
		i, known := at[key]
		if !known {
			i = len(all)
			at[key] = i
			all = append(all, askingTag{service: ask.Service, tag: ask.Tag})
		}
		t := &all[i]
		t.used = t.used || used
		for _, p := range problems {
			if !slices.Contains(t.why, p.Reason) {
				t.why = append(t.why, p.Reason)
			}
		}
	}
	for _, r := range routes {
		if r.AskedBy == nil {
			continue
		}
		add(*r.AskedBy, !r.Unused, r.Problems)
		for _, other := range r.SharedWith {
			add(other, true, nil)
		}
	}
	all = slices.DeleteFunc(all, func(t askingTag) bool { return service != "" && t.service != service })
	slices.SortStableFunc(all, func(a, b askingTag) int { return cmp.Compare(a.service, b.service) })
	return all
}

func writeTags(out io.Writer, all []askingTag) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "no tag asks for a route")
		return err
	}
	table := newTable(out, "SERVICE\tTAG\tUSED\tWHY")
	for _, t := range all {
		used := "yes"
		switch {
		case !t.used:
			used = "no"
		case len(t.why) > 0:
			used = "partly"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", printable(t.service), printable(t.tag), used, terminal.Printable(strings.Join(t.why, "; "), 600))
	}
	return table.Flush()
}

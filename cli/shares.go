package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sluice/cli/terminal"
	"sluice/config"
	"sluice/discovery"
	"sluice/release"
)

func newShares() *cobra.Command {
	command := show(&cobra.Command{
		Use:   "shares",
		Short: "Show the splits of services and their judges, and set shares",
		Long: "Show the splits of the services of a running sluice that have the share of one\n" +
			"group, and what their judges find. FAILING and SLOWER are the evidence that the\n" +
			"group fails more often than the rest, and that it is slower: 1 is none, 1000 is\n" +
			"enough for a rollback.",
	}, "/api/shares", writeShares)
	command.AddCommand(newSharesSet(), newSharesVerb(release.Pause, &cobra.Command{
		Use:   "pause SERVICE",
		Short: "Pause the judge of a service: the share stays as it is",
		Long: "Pause the judge of a service: it says what it finds, and the share stays as it is\n" +
			"until \"sluice shares resume\".",
	}), newSharesVerb(release.Resume, &cobra.Command{
		Use:   "resume SERVICE",
		Short: "Let the judge of a service go on",
		Long:  "Let the judge of a service go on with the present share. It acts on what it has found.",
	}), newSharesVerb(release.Release, &cobra.Command{
		Use:   "clear SERVICE",
		Short: "Return to the share of the configuration",
		Long: "Return to the share of the configuration, whoever has set another one: an operator\n" +
			"or the judge. If the share was 0, a new release begins.",
	}))
	return command
}

func writeShares(out io.Writer, splits []release.State, now time.Time) error {
	if len(splits) == 0 {
		_, err := fmt.Fprintln(out, "no service has a split with the share of one group")
		return err
	}
	table := newTable(out, "SERVICE\tGROUP\tSHARE\tCONFIGURED\tSET BY\tFOR\tJUDGE\tFAILING\tSLOWER\tWHY")
	for _, s := range splits {
		by, since, judge, failing, slower, why := "-", "-", "none", "-", "-", ""
		if j := s.Judge; j != nil {
			judge, why = "idle", j.Verdict
			if !j.Since.IsZero() {
				judge, failing, slower = "judges", evidence(j.Evidence), evidence(j.SlowEvidence)
			}
			if j.Paused {
				judge = "paused"
			}
		}
		if given := s.Override; given != nil {
			by, since, why = given.By, terminal.Age(now.Sub(given.Since)), cmp.Or(given.Why, why)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(s.Service), printable(s.Group),
			config.Percent(s.Share), config.Percent(s.Configured), printable(by), since, judge, failing, slower, printableWhy(why))
	}
	return table.Flush()
}

func evidence(e float64) string { return strconv.FormatFloat(e, 'g', 2, 64) }

// sharesOrder is an order about the split of a service.
type sharesOrder struct {
	api
	path  string // after the service's path, such as /pause
	query url.Values
	why   string
}

func newSharesSet() *cobra.Command {
	o := sharesOrder{query: url.Values{}}
	command := &cobra.Command{
		Use:   "set SERVICE [GROUP] SHARE",
		Short: "Set the share of a group, such as 5%",
		Long: "Set the share of the one group of a service's split, such as 5% or 0.05. GROUP\n" +
			"refuses the order if the split has another one.\n\n" +
			"Until \"sluice shares resume\" the judge of the service changes nothing. The share\n" +
			"lasts until \"clear\", or until the configuration has another share or group. With\n" +
			"consul.shares it is for all replicas, else for this one; without that and\n" +
			"admin.shares it ends with a restart, but not with an upgrade by SIGUSR2.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 || len(args) > 3 {
				return &usageError{errors.New("want SERVICE, perhaps GROUP, and SHARE")}
			}
			share, err := config.ParseShare(args[len(args)-1])
			if err != nil {
				return &usageError{err}
			}
			o.query.Set("share", strconv.FormatFloat(share, 'g', -1, 64))
			if len(args) == 3 {
				o.query.Set("group", args[1])
			}
			return nil
		},
	}
	return o.complete(command)
}

// newSharesVerb returns the command of a verb about a service.
func newSharesVerb(verb release.Verb, c *cobra.Command) *cobra.Command {
	o := sharesOrder{path: "/" + string(verb), query: url.Values{}}
	c.Args = oneArgument("name one service")
	return o.complete(c)
}

// complete completes c, which carries out o.
func (o *sharesOrder) complete(c *cobra.Command) *cobra.Command {
	o.addFlags(c)
	c.ValidArgsFunction = completeServices(&o.api, 1)
	c.Flags().StringVar(&o.why, "why", "", "`reason` to keep with the share")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		o.query.Set("why", o.why)
		var splits []release.State
		if err := o.askJSON(cmd.Context(), http.MethodPost, "/api/shares/"+discovery.PathSegment(args[0])+o.path, o.query, &splits); err != nil {
			return err
		}
		i := slices.IndexFunc(splits, func(s release.State) bool { return s.Service == args[0] })
		if i < 0 {
			return fmt.Errorf("admin API at %s: its answer lacks the service %q", o.address, args[0])
		}
		return writeShare(cmd.OutOrStdout(), splits[i])
	}
	return c
}

// writeShare writes the share that a split has, or gets in a moment.
func writeShare(out io.Writer, s release.State) error {
	line := fmt.Sprintf("%s: %s gets %s", printable(s.Service), printable(s.Group), config.Percent(s.Configured))
	if given := s.Override; given != nil {
		line = fmt.Sprintf("%s: %s gets %s, set by %s, configured %s", printable(s.Service), printable(s.Group),
			config.Percent(given.Share), printable(given.By), config.Percent(given.Configured))
		if given.Why != "" {
			line += ": " + printableWhy(given.Why)
		}
	}
	if s.Judge != nil && s.Judge.Paused {
		line += " (the judge is paused)"
	}
	_, err := fmt.Fprintln(out, line)
	return err
}

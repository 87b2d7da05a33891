package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sluice/admin"
	"sluice/cli/terminal"
	"sluice/config"
)

func newConfig() *cobra.Command {
	command := &cobra.Command{
		Use:   "config",
		Short: "Show the configuration and those before, go back to one, describe the file to editors",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			return &usageError{errors.New("want history, diff, rollback, schema, show or try")}
		},
	}
	command.AddCommand(newConfigHistory(), newConfigDiff(), newConfigRollback(), newConfigSchema(), newConfigShow(), newConfigTry())
	return command
}

func newConfigHistory() *cobra.Command {
	return show(&cobra.Command{Use: "history", Short: "List the applied configurations, the newest first"}, "/api/config/history", writeRevisions)
}

func writeRevisions(out io.Writer, revisions []admin.Revision, _ time.Time) error {
	w := newTable(out, "NUMBER\tTIME\tHASH\tREASON")
	for _, r := range revisions {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", r.Number, r.Time.Local().Format("2006-01-02 15:04:05"), r.Hash, printableWhy(r.Reason))
		for _, s := range r.Sources {
			if s.Pinned > 0 {
				fmt.Fprintf(w, "\t\t\t  %s is pinned to revision %d\n", printable(s.Name), s.Pinned)
			}
		}
	}
	return w.Flush()
}

func newConfigDiff() *cobra.Command {
	var v view
	command := &cobra.Command{
		Use:   "diff A B",
		Short: "Show the differences between two applied configurations",
		Long:  "Show the differences between two applied configurations, which have the numbers A\nand B, key by key. Secrets are masked.",
		Args:  revisions(2, "name two revisions by their numbers"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return look(cmd, v, query[[]config.Change]{api: &v.api, path: "/api/config/diff/" + args[0] + "/" + args[1], write: writeChanges})
		},
	}
	v.addJSONFlag(command)
	return command
}

// revisions accepts a number of revisions as arguments. want is the error for fewer or more.
func revisions(number int, want string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != number {
			return &usageError{errors.New(want)}
		}
		for _, arg := range args {
			if _, err := strconv.ParseUint(arg, 10, 64); err != nil {
				return &usageError{fmt.Errorf("%q: want the number of a revision", arg)}
			}
		}
		return nil
	}
}

func writeChanges(out io.Writer, changes []config.Change, _ time.Time) error {
	for _, c := range changes {
		if _, err := fmt.Fprintln(out, terminal.PrintableLong(c.String())); err != nil {
			return err
		}
	}
	return nil
}

// rollback is the command of that name.
type rollback struct {
	api
	why string
}

func newConfigRollback() *cobra.Command {
	var r rollback
	command := &cobra.Command{
		Use:   "rollback NUMBER",
		Short: "Use the documents of an earlier configuration again",
		Long: "Use the documents of an earlier configuration again, as a new one. A source that says\n" +
			"something else now is pinned to them until it changes, also after a restart. It\n" +
			"affects this replica only.",
		Args: revisions(1, "name one revision by its number"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.carryOut(cmd.Context(), args[0], cmd.OutOrStdout())
		},
	}
	r.addFlags(command)
	command.Flags().StringVar(&r.why, "why", "", "`reason` to keep with the new configuration")
	return command
}

func (r *rollback) carryOut(ctx context.Context, number string, out io.Writer) error {
	var current, done admin.Revision
	if err := r.askJSON(ctx, http.MethodGet, "/api/config", nil, &current); err != nil {
		return err
	}
	r.match = current.Hash
	query := url.Values{"number": {number}, "why": {r.why}}
	if err := r.askJSON(ctx, http.MethodPost, "/api/config/rollback", query, &done); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "revision %d is in use: %s\n", done.Number, terminal.PrintableLong(done.Reason)); err != nil {
		return err
	}
	for _, s := range done.Sources {
		if s.Pinned > 0 {
			if _, err := fmt.Fprintf(out, "%s is pinned to its documents of revision %d until it changes\n", printable(s.Name), s.Pinned); err != nil {
				return err
			}
		}
	}
	return nil
}

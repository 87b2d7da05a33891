package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sluice/admin"
	"sluice/cli/terminal"
)

func newConfigTry() *cobra.Command {
	var v view
	command := &cobra.Command{
		Use:   "try DOCUMENT FILE",
		Short: "Show what a document would change, before it is written",
		Long: "Show which requests of the last hour would be served otherwise if a document had the\n" +
			"text of a file, before it is written. They are a sample of each route. The document\n" +
			"may be new. The exit status is 1 if sluice would refuse some that it serves now.\n\n" +
			"  sluice config try consul_kv:sluice/shop.yaml shop.yaml",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 || args[0] == "" {
				return &usageError{errors.New("name a document, such as consul_kv:sluice/shop.yaml, and the file with its text")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return tryText(cmd, v, args[1], args[0]) },
	}
	v.addJSONFlag(command)
	return command
}

// tryText shows what would become of the requests of the last hour with the text of a file in place
// of a document, or with "" of the configuration file.
func tryText(cmd *cobra.Command, v view, file, document string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	v.body = string(text)
	ctx, stop := untilSignal(cmd)
	defer stop()
	body, err := v.ask(ctx, http.MethodPost, "/api/route/against", url.Values{"document": {document}})
	if err != nil {
		return err
	}
	var f admin.Foresight
	if err := json.Unmarshal(body, &f); err != nil {
		return fmt.Errorf("admin API at %s: not an answer of sluice: %w", v.address, err)
	}
	if v.asJSON {
		_, err = cmd.OutOrStdout().Write(body)
	} else {
		err = writeForesight(cmd.OutOrStdout(), f)
	}
	for _, c := range f.Changes {
		if err == nil && c.Fails {
			err = errors.New("sluice would refuse requests that it serves now")
		}
	}
	return err
}

func writeForesight(out io.Writer, f admin.Foresight) error {
	changed := 0
	for _, c := range f.Changes {
		changed += c.Requests
	}
	if f.Requests == 0 {
		fmt.Fprintln(out, "no requests in the last hour")
	} else {
		fmt.Fprintf(out, "requests looked at: %d, a sample of each route since %s; served otherwise: %d\n", f.Requests, f.Since.Local().Format("15:04:05"), changed)
	}
	for _, u := range f.Unknown {
		fmt.Fprintf(out, "not known: %s\n", terminal.Printable(u, 200))
	}
	if len(f.Changes) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	table := newTable(out, "REQUESTS\tNOW\tTHEN\tSUCH AS")
	for _, c := range f.Changes {
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\n", c.Requests, terminal.Printable(c.Now, 200), terminal.Printable(c.Then, 200), terminal.Printable(strings.Join(c.Examples, " "), 200))
	}
	return table.Flush()
}

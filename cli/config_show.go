package cli

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sluice/cli/terminal"
	"sluice/config"
)

func newConfigShow() *cobra.Command {
	var v view
	in := config.Input{Getenv: os.Getenv}
	var service string
	command := &cobra.Command{
		Use:   "show",
		Short: "Show all values, and where each is from",
		Long: "Show all values of a running sluice, or of a configuration file, and where each is\n" +
			"from: a line of a file or document, the defaults there, a tag, or built in. Secrets\n" +
			"are masked. A file tells nothing of what tags and documents of registries say.\n\n" +
			"  sluice config show --service star\n" +
			"  sluice config show --service star --config sluice.yaml",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if in.File == "" {
				values := query[[]config.Value]{api: &v.api, path: "/api/config/values", query: url.Values{"service": {service}}, write: writeValues}
				return look(cmd, v, values)
			}
			if v.asJSON {
				return &usageError{errors.New("--json prints the answer of a running sluice: want no --config")}
			}
			built, err := in.Load()
			if err != nil {
				return err
			}
			values, err := built.Values(service, nil)
			if err != nil {
				return err
			}
			return writeValues(cmd.OutOrStdout(), values, time.Time{})
		},
	}
	v.addJSONFlag(command)
	flags := command.Flags()
	flags.StringVarP(&in.File, "config", "c", "", "configuration `file`, in place of a running sluice")
	flags.StringVar(&service, "service", "", "only the service with this `name` in sluice, and the routes to it")
	return command
}

func writeValues(out io.Writer, values []config.Value, _ time.Time) error {
	w := newTable(out, "KEY\tVALUE\tFROM")
	for _, v := range values {
		fmt.Fprintf(w, "%s\t%s\t%s\n", terminal.PrintableLong(v.Key), terminal.PrintableLong(v.Value), terminal.PrintableLong(v.From))
	}
	return w.Flush()
}

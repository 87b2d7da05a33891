package cli

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"sluice/config"
	"sluice/operator"
)

func newLog() *cobra.Command {
	var a api
	command := &cobra.Command{
		Use:   "log [debug | info | warn | error | clear]",
		Short: "Show the level of the log, or set it",
		Long: "Show the level of the log of a running sluice, or set it in place of log.level.\n" +
			"\"clear\" returns to the configuration's. The level lasts until then, until a\n" +
			"restart, or until the configuration has another one; it survives an upgrade by\n" +
			"SIGUSR2.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && args[0] != "clear" && !config.IsLogLevel(args[0]) {
				return &usageError{errors.New("want debug, info, warn, error, clear or nothing")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			method, path, parameters := http.MethodGet, "/api/log", url.Values{}
			if len(args) == 1 {
				level := args[0]
				if level == "clear" {
					level = "release"
				}
				method, path = http.MethodPost, "/api/log/"+level
				parameters.Set("by", userAtHost())
			}
			var l operator.LogLevel
			if err := a.askJSON(cmd.Context(), method, path, parameters, &l); err != nil {
				return err
			}
			line := l.Level
			if !l.Since.IsZero() {
				line = fmt.Sprintf("%s, set by %s since %s, configured %s", l.Level, printable(l.By), l.Since.Format(time.RFC3339), l.Configured)
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), line)
			return err
		},
	}
	a.addFlags(command)
	return command
}

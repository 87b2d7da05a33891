package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"sluice/admin"
	"sluice/cli/terminal"
)

func newReady() *cobra.Command {
	var a api
	var why string
	command := &cobra.Command{
		Use:   "ready [on | off]",
		Short: "Show whether sluice is ready, or make it not ready",
		Long: "Show whether a running sluice is ready, with exit status 1 if not. \"off\" makes it\n" +
			"not ready: /readyz answers 503, and its check in Consul is critical, so that load\n" +
			"balancers in front of it send no more requests; sluice serves those that come. It\n" +
			"lasts until \"on\" or a restart, and survives an upgrade by SIGUSR2.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && args[0] != "on" && args[0] != "off" {
				return &usageError{errors.New("want on, off or nothing")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			method, path, parameters := http.MethodGet, "/api/ready", url.Values{}
			if len(args) == 1 {
				method, path = http.MethodPost, "/api/ready/"+args[0]
				parameters.Set("by", userAtHost())
				parameters.Set("why", why)
			}
			var answer admin.Readiness
			if err := a.askJSON(cmd.Context(), method, path, parameters, &answer); err != nil {
				return err
			}
			if err := writeReadiness(cmd.OutOrStdout(), answer); err != nil {
				return err
			}
			if len(args) == 0 && !answer.Ready {
				return &exitError{status: exitFailed}
			}
			return nil
		},
	}
	a.addFlags(command)
	command.Flags().StringVar(&why, "why", "", "`reason` to show in /readyz")
	return command
}

func writeReadiness(out io.Writer, r admin.Readiness) error {
	line := "ready"
	if !r.Ready {
		line = "not ready"
	}
	if len(r.Missing) > 0 {
		line += ": " + terminal.PrintableLong(strings.Join(r.Missing, "; "))
	}
	_, err := fmt.Fprintln(out, line)
	return err
}

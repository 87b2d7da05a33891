package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"sluice/config"
)

func newCheck() *cobra.Command {
	in := config.Input{Getenv: os.Getenv, OpenFiles: true}
	command := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Check a configuration file",
		Long: "Load a configuration file as run does, with the environment, without any effect.\n" +
			"Print all errors with file and line, key, value and what is allowed. The exit\n" +
			"status is 0 without errors, else 1.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if in.File == "" {
				return &usageError{errors.New("--config FILE is missing")}
			}
			r, err := in.Load()
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is right: listeners %d, services %d, routes %d\n",
				in.File, len(r.Config.Listeners), len(r.Config.Services), len(r.Config.Routes))
			return nil
		},
	}
	command.Flags().StringVarP(&in.File, "config", "c", "", "configuration `file`")
	return command
}

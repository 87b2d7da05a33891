package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sluice/config/imported"
	"sluice/config/regular"
)

// maxImportedBytes limits a file to import, far above the size of a real one.
const maxImportedBytes = 4 << 20

func newImport() *cobra.Command {
	var out string
	command := &cobra.Command{
		Use:   "import {" + strings.Join(imported.Origins(), "|") + "} FILE...",
		Short: "Translate the configuration of another load balancer",
		Long: "Translate the configuration of another load balancer into a file for sluice, which\n" +
			"sluice check accepts. Standard error has a line for each line that does not carry\n" +
			"over, with what to do. A route whose restriction does not carry over denies every\n" +
			"request.\n\n" +
			"  sluice import traefik traefik.yml dynamic/*.yml -o sluice.yaml\n" +
			"  sluice import nginx nginx.conf conf.d/*.conf -o sluice.yaml",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return &usageError{errors.New("name the load balancer, and its files")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var files []imported.File
			for _, name := range args[1:] {
				text, err := regular.ReadUpTo(name, maxImportedBytes)
				if err != nil {
					return fmt.Errorf("read the file to import: %w", err)
				}
				files = append(files, imported.File{Name: name, Text: string(text)})
			}
			result, err := imported.Translate(args[0], files)
			for _, n := range result.Notes {
				fmt.Fprintln(cmd.ErrOrStderr(), n)
			}
			if err != nil {
				return err
			}
			if out == "" {
				_, err = cmd.OutOrStdout().Write(result.YAML)
				return err
			}
			return os.WriteFile(out, result.YAML, 0o600) // header values may be credentials
		},
	}
	command.Flags().StringVarP(&out, "output", "o", "", "write to this `file`, not to standard output")
	return command
}

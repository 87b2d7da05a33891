package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"sluice/config"
)

// usualFile is where packages put the configuration.
var usualFile = "/etc/sluice/sluice.yaml"

func newCheck() *cobra.Command {
	in := config.Input{Getenv: os.Getenv, OpenFiles: true}
	var asJSON bool
	command := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration file",
		Long: "Load a configuration file as run does, with the environment, without any effect.\n" +
			"Print all errors with file and line, key, value and what is allowed. The exit\n" +
			"status is 0 without errors, else 1. Without FILE it is " + usualFile + ".",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				if in.File != "" {
					return &usageError{errors.New("name the file once: as FILE or by --config")}
				}
				in.File = args[0]
			}
			in.File = cmp.Or(in.File, usualFile)
			r, err := in.Load()
			if asJSON {
				return writeCheck(cmd.OutOrStdout(), in.File, err)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is right: listeners %d, services %d, routes %d\n",
				in.File, len(r.Config.Listeners), len(r.Config.Services), len(r.Config.Routes))
			return nil
		},
	}
	command.Flags().StringVarP(&in.File, "config", "c", "", "configuration `file`")
	command.Flags().BoolVar(&asJSON, "json", false, "print the errors as JSON")
	return command
}

// writeJSON writes v as JSON for people.
func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// writeCheck writes what check has found as JSON, and returns an error that sets the status if it
// is wrong.
func writeCheck(out io.Writer, file string, err error) error {
	type mistake struct {
		File    string `json:"file"` // or --FLAG, or the name of a variable: then line is absent
		Line    int    `json:"line,omitempty"`
		Column  int    `json:"column,omitempty"` // of the key, if known
		Key     string `json:"key,omitempty"`
		Value   string `json:"value,omitempty"` // quoted
		Message string `json:"message"`
	}
	result := struct {
		File   string    `json:"file"`
		Right  bool      `json:"right"`
		Errors []mistake `json:"errors"`
	}{file, err == nil, []mistake{}}
	if mistakes, ok := errors.AsType[config.Errors](err); ok {
		for _, m := range mistakes {
			where, line, column := m.Place()
			result.Errors = append(result.Errors, mistake{where, line, column, m.Key, m.Value, m.Want})
		}
	} else if err != nil {
		result.Errors = append(result.Errors, mistake{File: file, Message: err.Error()})
	}
	if failed := writeJSON(out, result); failed != nil || err == nil {
		return failed
	}
	return &exitError{status: exitFailed}
}

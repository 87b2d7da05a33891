package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"sluice/cli/terminal"
)

// completionTimeout is how long a shell waits for names from a running sluice.
const completionTimeout = time.Second

// completeServices completes arguments of a command that are names of services, at most
// most (0: any number), from the sluice that a names. Without an answer there is no
// completion.
func completeServices(a *api, most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		services, err := servicesOf(a).get(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp // a shell has no place for errors
		}
		var names []cobra.Completion
		for _, s := range services {
			names = append(names, terminal.PrintableLong(s.Service))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/admin"
)

// refuseLast fails if no other peer of a service gets requests than those that a drain is about.
// What others order meanwhile is not seen.
func (o *order) refuseLast(ctx context.Context, drained func(admin.Peer) bool) error {
	if o.path != "drain" || o.force {
		return nil
	}
	peers, err := peersOf(&o.api).get(ctx)
	if err != nil {
		return err
	}
	var emptied []string
	left := make(map[string]bool)
	for _, p := range peers {
		switch {
		case !p.Used:
		case !drained(p):
			left[p.Service] = true
		case !slices.Contains(emptied, p.Service):
			emptied = append(emptied, p.Service)
		}
	}
	emptied = slices.DeleteFunc(emptied, func(service string) bool { return left[service] })
	if len(emptied) == 0 {
		return nil
	}
	return fmt.Errorf("no other peer of %s gets requests: --force drains all the same", printable(strings.Join(emptied, ", ")))
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sluice/admin"
)

// order is a command of an operator about a peer.
type order struct {
	api
	verb    string // as in the admin API: drain, enable
	peer    string // its id, its address, or "service/id"
	service string // "": any
	why     string
	wait    time.Duration // for its requests in flight; 0: none
}

func newDrain() *cobra.Command {
	o := order{verb: "drain"}
	command := o.command(&cobra.Command{
		Use:   "drain PEER",
		Short: "Drain a peer: it gets no new requests",
		Long: "Drain a peer of a running sluice: it gets no new requests, and those in flight go\n" +
			"on. PEER is its id, its address or SERVICE/ID.\n\n" +
			"The drain lasts until \"sluice enable\", also when the instance deregisters and\n" +
			"returns. It survives an upgrade by SIGUSR2, not a restart. It affects this replica\n" +
			"only: consul maint takes an instance out of all replicas.",
	})
	command.Flags().StringVar(&o.why, "why", "", "`reason` to show with the peer")
	command.Flags().DurationVar(&o.wait, "wait", 0, "wait up to this `time` until no request is in flight, else fail")
	return command
}

func newEnable() *cobra.Command {
	o := order{verb: "enable"}
	return o.command(&cobra.Command{
		Use:   "enable PEER",
		Short: "End the drain of a peer",
		Long: "End the drain of a peer: it gets requests again unless it has another reason\n" +
			"against it. PEER is its id, its address or SERVICE/ID; the last also works while the\n" +
			"instance is not registered.",
	})
}

// command completes c, which executes o.
func (o *order) command(c *cobra.Command) *cobra.Command {
	c.Args = func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return &usageError{errors.New("name one peer")}
		}
		return nil
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		o.peer = args[0]
		ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return o.carryOut(ctx, cmd.OutOrStdout())
	}
	o.addFlags(c)
	c.Flags().StringVar(&o.service, "service", "", "`service` of the peer, if several have such a peer")
	return c
}

func (o *order) carryOut(ctx context.Context, out io.Writer) error {
	p, err := o.find(ctx)
	if err != nil {
		return err
	}
	path := "/api/peers/" + url.PathEscape(p.Service) + "/" + url.PathEscape(p.ID) + "/" + o.verb
	query := url.Values{}
	for name, value := range map[string]string{"node": p.Node, "address": p.Address, "why": o.why} {
		if value != "" {
			query.Set(name, value)
		}
	}
	body, err := o.ask(ctx, http.MethodPost, path, query)
	if err != nil {
		return err
	}
	var done admin.Operated
	if err := o.decode(body, &done); err != nil {
		return err
	}
	if o.wait > 0 {
		return o.await(ctx, out, done)
	}
	if done.Peer == nil {
		_, err = fmt.Fprintf(out, "%s/%s (%s) is not registered; it may get requests when it returns\n",
			printable(done.Service), printable(done.ID), done.Address)
		return err
	}
	return writeState(out, *done.Peer)
}

// writeState writes the state of a peer.
func writeState(out io.Writer, p admin.Peer) error {
	line := fmt.Sprintf("%s/%s (%s) is %s, %d in flight", printable(p.Service), printable(p.ID), p.Address, p.State, p.Inflight)
	if len(p.Reasons) > 0 {
		line += ": " + printableWhy(strings.Join(p.Reasons, ", "))
	}
	_, err := fmt.Fprintln(out, line)
	return err
}

// find returns the peer; for enable of an absent one, only service and id.
func (o *order) find(ctx context.Context) (admin.Peer, error) {
	q := peersOf(&o.api)
	if o.service != "" {
		q = peersOf(&o.api, o.service)
	}
	peers, err := q.get(ctx)
	if err != nil {
		return admin.Peer{}, err
	}
	peers = slices.DeleteFunc(peers, func(p admin.Peer) bool {
		return o.peer != p.ID && o.peer != p.Address && o.peer != p.Service+"/"+p.ID || slices.Contains(p.Reasons, "removed from the set")
	})
	switch {
	case len(peers) == 1:
		return peers[0], nil
	case len(peers) > 1:
		message := fmt.Sprintf("several peers match %q: use an address", o.peer)
		for _, p := range peers {
			message += fmt.Sprintf("\n  %s/%s  %s  %s", printable(p.Service), printable(p.ID), printable(p.Node), p.Address)
		}
		return admin.Peer{}, errors.New(message)
	case o.verb == "enable" && o.service != "":
		return admin.Peer{Service: o.service, ID: strings.TrimPrefix(o.peer, o.service+"/")}, nil
	}
	if service, id, ok := strings.Cut(o.peer, "/"); ok && o.verb == "enable" {
		return admin.Peer{Service: service, ID: id}, nil
	}
	return admin.Peer{}, fmt.Errorf("no peer %q: \"sluice peers\" lists all", o.peer)
}

func (o *order) await(ctx context.Context, out io.Writer, done admin.Operated) error {
	deadline := time.Now().Add(o.wait)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	q := peersOf(&o.api, done.Service)
	for {
		peers, err := q.get(ctx)
		if err != nil {
			return err
		}
		inflight := 0
		last := admin.Peer{Service: done.Service, ID: done.ID, Address: done.Address, State: "gone"}
		for _, p := range peers {
			if p.ID == done.ID && p.Node == done.Node && p.Address == done.Address {
				last = p
				inflight += p.Inflight
			}
		}
		if inflight == 0 {
			return writeState(out, last)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s/%s (%s) still has %d in flight after %s", printable(done.Service), printable(done.ID), done.Address, inflight, o.wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

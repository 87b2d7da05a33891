package main

import (
	"context"
	"encoding/json"
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

// order is what an operator wants done with a peer.
type order struct {
	api
	verb    string // as in the admin API: drain, enable
	peer    string // its id, its address, or "service/id"
	service string // "": any
	why     string
	wait    time.Duration // for its requests in flight; 0: not at all
}

func newDrain() *cobra.Command {
	o := order{verb: "drain"}
	command := o.command(&cobra.Command{
		Use:   "drain PEER",
		Short: "Take a peer out: no more requests for it, those in flight go on",
		Long: "Take a peer out of a running sluice. It gets no more requests, and those in\n" +
			"flight go on to their end. PEER is its id, its address or SERVICE/ID.\n\n" +
			"It stays out until \"sluice enable\", even if it deregisters and comes back, so\n" +
			"that it can be upgraded and looked at. A restart of sluice forgets that, but not\n" +
			"one by SIGUSR2. Other replicas of sluice are not told: where there are several,\n" +
			"consul maint takes an instance out of all.",
	})
	command.Flags().StringVar(&o.why, "why", "", "`reason` to be shown with the peer")
	command.Flags().DurationVar(&o.wait, "wait", 0, "wait up to this `time` until no request is in flight; fail if some are then")
	return command
}

func newEnable() *cobra.Command {
	o := order{verb: "enable"}
	return o.command(&cobra.Command{
		Use:   "enable PEER",
		Short: "Undo drain",
		Long: "Let a peer that was drained have requests again, if nothing else speaks\n" +
			"against it. PEER is its id, its address or SERVICE/ID; the last also works while\n" +
			"the instance is not registered.",
	})
}

// command completes c, which carries out o.
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
	c.Flags().StringVar(&o.service, "service", "", "`service` of the peer, where several have one of that name")
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
	if err := json.Unmarshal(body, &done); err != nil {
		return fmt.Errorf("admin API at %s: not an answer of sluice: %w", o.address, err)
	}
	if o.wait > 0 {
		return o.await(ctx, out, done)
	}
	if done.Peer == nil {
		_, err = fmt.Fprintf(out, "%s/%s (%s) is not there at the moment; it may have requests when it returns\n",
			printable(done.Service), printable(done.ID), done.Address)
		return err
	}
	return writeStanding(out, *done.Peer)
}

// writeStanding says how a peer stands.
func writeStanding(out io.Writer, p admin.Peer) error {
	line := fmt.Sprintf("%s/%s (%s) is %s, %d in flight", printable(p.Service), printable(p.ID), p.Address, p.State, p.Inflight)
	if len(p.Reasons) > 0 {
		line += ": " + printableWhy(strings.Join(p.Reasons, ", "))
	}
	_, err := fmt.Fprintln(out, line)
	return err
}

// find returns the peer that is meant, or what is known of it: service and id.
func (o *order) find(ctx context.Context) (admin.Peer, error) {
	q := peersQuery{api: o.api}
	if o.service != "" {
		q.services = []string{o.service}
	}
	peers, err := q.peers(ctx)
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
		message := fmt.Sprintf("several peers are %q: name one by its address", o.peer)
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
	return admin.Peer{}, fmt.Errorf("no peer %q: \"sluice peers\" shows all", o.peer)
}

// await waits until the peer has no request in flight.
func (o *order) await(ctx context.Context, out io.Writer, done admin.Operated) error {
	deadline := time.Now().Add(o.wait)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	q := peersQuery{api: o.api, services: []string{done.Service}}
	for {
		peers, err := q.peers(ctx)
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
			return writeStanding(out, last)
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

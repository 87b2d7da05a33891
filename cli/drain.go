package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/admin"
	"sluice/discovery"
	"sluice/discovery/locality"
	"sluice/observe/wake"
)

// order is a command of an operator about a peer, or about a node.
type order struct {
	api
	path    string     // in the API, after the peer's path: drain, enable, weight, weight/release
	peer    string     // its id, its address, or "service/id"
	node    string     // in place of a peer; "": a peer
	in      string     // the data centre of node; "": the one that has it
	service string     // of the peer; "": any
	query   url.Values // of the order
	terms
	force bool          // a drain may leave a service without peers
	waits bool          // for its requests in flight
	wait  time.Duration // how long; with 0, there must be none now
}

// terms are why an order is given, and for how long.
type terms struct {
	why   string
	lasts time.Duration // only if the flag is given
}

func (t *terms) addFlags(c *cobra.Command, why string) {
	c.Flags().StringVar(&t.why, "why", "", why)
	c.Flags().DurationVar(&t.lasts, "for", 0, "end it by itself after this `time`, such as 30m")
}

// addTo adds t, and who gives the order, to the query of the order of c. The API refuses a time
// that is over at once, which is not an order without an end.
func (t *terms) addTo(c *cobra.Command, query url.Values) {
	if c.Flags().Changed("for") {
		query.Set("for", t.lasts.String())
	}
	query.Set("by", userAtHost())
	query.Set("why", t.why)
}

func newDrain() *cobra.Command {
	o := order{path: "drain"}
	command := o.command(&cobra.Command{
		Use:   "drain PEER | --node NODE",
		Short: "Drain a peer or a node: no new requests",
		Long: "Drain a peer of a running sluice: it gets no new requests, and those in flight go\n" +
			"on. PEER is its id, its address or SERVICE/ID. With --node, all peers of a node are\n" +
			"drained, also those that are registered later. An instance that several services\n" +
			"have is drained in all of them.\n\n" +
			"The drain lasts until \"sluice enable\" or for the time of --for, also when the\n" +
			"instance deregisters and returns. It survives an upgrade by SIGUSR2, and a restart\n" +
			"with admin.orders or consul.orders. With consul.orders it reaches all replicas.\n" +
			"\"sluice orders\" shows all drains.",
	})
	o.terms.addFlags(command, "`reason` to show with the peer")
	o.addNode(command)
	command.Flags().BoolVar(&o.force, "force", false, "drain also the last peer of a service that gets requests")
	command.Flags().DurationVar(&o.wait, "wait", 0, "wait up to this `time` until no request is in flight, else fail")
	return command
}

func newEnable() *cobra.Command {
	o := order{path: "enable"}
	command := o.command(&cobra.Command{
		Use:   "enable PEER | --node NODE",
		Short: "End the drain of a peer or a node",
		Long: "End the drain of a peer or a node: it gets requests again unless it has another\n" +
			"reason against it. PEER is its id, its address or SERVICE/ID; the last also works\n" +
			"while the instance is not registered.",
	})
	o.addNode(command)
	return command
}

func newWeight() *cobra.Command {
	o := order{path: "weight"}
	command := o.command(&cobra.Command{
		Use:   "weight PEER WEIGHT | weight PEER clear",
		Short: "Set the weight of a peer in place of the registry's",
		Long: "Set the weight of a peer of a running sluice, from 1 to 65535, in place of that in\n" +
			"the registry. \"clear\" returns to the registry's. PEER is its id, its address or\n" +
			"SERVICE/ID. The weight lasts as long as a drain does: see \"sluice drain --help\".",
	})
	command.Args = func(_ *cobra.Command, args []string) error {
		if len(args) != 2 {
			return &usageError{errors.New("want PEER, and WEIGHT or clear")}
		}
		if args[1] == "clear" {
			o.path += "/release"
			return nil
		}
		if weight, err := strconv.Atoi(args[1]); err != nil || weight < 1 || weight > discovery.MaxWeight {
			return &usageError{fmt.Errorf("weight %q: want a number from 1 to %d, or clear", args[1], discovery.MaxWeight)}
		}
		o.query.Set("weight", args[1])
		return nil
	}
	o.terms.addFlags(command, "`reason` to show with the peer")
	return command
}

// command completes c, which executes o.
func (o *order) command(c *cobra.Command) *cobra.Command {
	o.query = url.Values{}
	c.Args = func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) != 1 && o.node == "":
			return &usageError{errors.New("name one peer")}
		case len(args) > 0 && o.node != "":
			return &usageError{errors.New("name a peer or a node, not both")}
		case o.service != "" && o.node != "":
			return &usageError{errors.New("--service is for a peer: a node is drained with the peers of all services")}
		case o.in != "" && o.node == "":
			return &usageError{errors.New("--datacenter is for --node")}
		}
		return nil
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			o.peer = args[0]
		}
		o.terms.addTo(cmd, o.query)
		o.waits = cmd.Flags().Changed("wait")
		ctx, stop := untilSignal(cmd)
		defer stop()
		if o.node != "" {
			return o.carryOutForNode(ctx, cmd.OutOrStdout())
		}
		return o.carryOut(ctx, cmd.OutOrStdout())
	}
	o.api.addFlags(c)
	c.Flags().StringVar(&o.service, "service", "", "`service` of the peer, if several have such a peer")
	return c
}

func (o *order) addNode(c *cobra.Command) {
	c.Flags().StringVar(&o.node, "node", "", "all peers that are registered with this `node`, in place of one peer")
	c.Flags().StringVar(&o.in, "datacenter", "", "`name` of the data centre of --node, if several have such a node")
}

// userAtHost returns who runs this command, for people: USER@HOST. It is no proof.
func userAtHost() string {
	name := os.Getenv("SUDO_USER")
	if u, err := user.Current(); name == "" && err == nil {
		name = u.Username
	}
	host, _ := os.Hostname() // without a name it is empty
	return printable(strings.Trim(name+"@"+host, "@"))
}

func (o *order) carryOut(ctx context.Context, out io.Writer) error {
	p, shared, err := o.find(ctx)
	if err != nil {
		return err
	}
	if err := o.refuseLast(ctx, func(other admin.Peer) bool { return sameInstance(other, p) }); err != nil {
		return err
	}
	done, err := o.give(ctx, p, o.path, o.query)
	if err != nil {
		return err
	}
	if o.waits {
		peers, err := o.await(ctx, out, printable(done.Service)+"/"+printable(done.ID)+" ("+done.Address+")", func(p *admin.Peer) bool {
			// A registry has the node, and the order counts in each service with this instance.
			everywhere := done.Node != ""
			host, _, _ := net.SplitHostPort(p.Address)
			// Another agent may have registered it meanwhile. A loopback address is then
			// another instance.
			sameNode := p.Node == done.Node || !locality.Ambiguous(host)
			return (everywhere || p.Service == done.Service) && p.ID == done.ID && sameNode && p.Address == done.Address
		})
		if err != nil {
			return err
		}
		done.Peer = &admin.Peer{Service: done.Service, ID: done.ID, Address: done.Address, State: "gone"}
		for i := range peers {
			if peers[i].Service == done.Service {
				done.Peer = &peers[i]
			}
		}
	}
	switch {
	case done.Peer == nil:
		_, err = fmt.Fprintf(out, "%s/%s (%s) is not registered; it may get requests when it returns\n",
			printable(done.Service), printable(done.ID), done.Address)
	case shared:
		err = o.writeEach(ctx, out, *done.Peer)
	default:
		err = o.writeState(out, *done.Peer)
	}
	return errors.Join(err, writePending(out, done.Acceptance))
}

func (o *order) carryOutForNode(ctx context.Context, out io.Writer) error {
	var done admin.OperatedNode
	if o.in != "" {
		o.query.Set("datacenter", o.in)
	}
	inNode := func(p admin.Peer) bool { return p.Node == o.node && (o.in == "" || p.Datacenter == o.in) }
	if err := o.refuseLast(ctx, inNode); err != nil {
		return err
	}
	if err := o.askJSON(ctx, http.MethodPost, "/api/nodes/"+discovery.PathSegment(o.node)+"/"+o.path, o.query, &done); err != nil {
		return err
	}
	if o.waits {
		var err error
		if done.Peers, err = o.await(ctx, out, "node "+printable(o.node), func(p *admin.Peer) bool {
			return p.Node == done.Node && p.Datacenter == done.Datacenter
		}); err != nil {
			return err
		}
	}
	for _, p := range done.Peers {
		if err := o.writeState(out, p); err != nil {
			return err
		}
	}
	if len(done.Peers) == 0 {
		fmt.Fprintf(out, "no peer is registered with the node %s\n", printable(o.node))
	}
	return writePending(out, done.Acceptance)
}

// writePending says that other replicas do not have an order yet.
func writePending(out io.Writer, a admin.Acceptance) (err error) {
	if a.Shared && a.Pending != "" {
		_, err = fmt.Fprintf(out, "other replicas do not know it yet: %s\n", printableWhy(a.Pending))
	}
	return err
}

// writeEach writes the state in each service that has the instance of p.
func (o *order) writeEach(ctx context.Context, out io.Writer, p admin.Peer) error {
	peers, err := peersOf(&o.api).get(ctx)
	for _, other := range peers {
		if sameInstance(other, p) {
			err = errors.Join(err, o.writeState(out, other))
		}
	}
	return err
}

// writeState writes the state of a peer, with its weight after an order about that.
func (o *order) writeState(out io.Writer, p admin.Peer) error {
	state := p.State
	if o.path == "weight" || o.path == "weight/release" {
		state += fmt.Sprintf(", weight %d", p.Weight)
	}
	line := fmt.Sprintf("%s/%s (%s) is %s, %d in flight", printable(p.Service), printable(p.ID), p.Address, state, p.Inflight)
	if len(p.Reasons) > 0 {
		line += ": " + printableWhy(strings.Join(p.Reasons, ", "))
	}
	_, err := fmt.Fprintln(out, line)
	return err
}

// ends reports whether o ends another order, of a peer that may be absent.
func (o *order) ends() bool { return o.path == "enable" || o.path == "weight/release" }

// find returns the peer; to end the order about an absent one, only service and id. shared: it is
// named without a service, and several have this instance.
func (o *order) find(ctx context.Context) (found admin.Peer, shared bool, err error) {
	q := peersOf(&o.api)
	if o.service != "" {
		q = peersOf(&o.api, o.service)
	}
	peers, err := q.get(ctx)
	if err != nil {
		return admin.Peer{}, false, err
	}
	peers = slices.DeleteFunc(peers, func(p admin.Peer) bool {
		return o.peer != p.ID && o.peer != p.Address && o.peer != p.Service+"/"+p.ID || p.Leaving
	})
	switch {
	case len(peers) > 0 && !slices.ContainsFunc(peers, func(p admin.Peer) bool { return !sameInstance(p, peers[0]) }):
		return peers[0], len(peers) > 1, nil // an order about it counts in all its services
	case len(peers) > 1:
		message := fmt.Sprintf("several peers match %q: name one by SERVICE/ID, or by its address with --service", o.peer)
		for _, p := range peers {
			message += fmt.Sprintf("\n  %s/%s  %s  %s", printable(p.Service), printable(p.ID), printable(p.Node), p.Address)
		}
		return admin.Peer{}, false, errors.New(message)
	case o.ends() && o.service != "":
		return admin.Peer{Service: o.service, ID: strings.TrimPrefix(o.peer, o.service+"/")}, false, nil
	}
	if service, id, ok := strings.Cut(o.peer, "/"); ok && o.ends() {
		return admin.Peer{Service: service, ID: id}, false, nil
	}
	return admin.Peer{}, false, fmt.Errorf("no peer %q: \"sluice peers\" lists all", o.peer)
}

// sameInstance reports whether two peers are one instance of a registry, which has the nodes.
func sameInstance(a, b admin.Peer) bool {
	return (a.Service == b.Service || a.Node != "") &&
		a.ID == b.ID && a.Node == b.Node && a.Address == b.Address && a.Datacenter == b.Datacenter
}

// await waits until no request is in flight on the peers that f selects, in any process and any
// replica. It returns these peers, and says on out which replica does not tell.
func (o *order) await(ctx context.Context, out io.Writer, what string, f func(*admin.Peer) bool) (peers []admin.Peer, err error) {
	deadline := time.Now().Add(o.wait)
	err = wake.Repeat(ctx, waitInterval, func() (bool, error) {
		found, busy, unknown, err := o.inFlight(ctx, f)
		peers = found
		switch {
		case err != nil || busy == "" && unknown == "":
			return true, err
		case busy != "" && time.Now().After(deadline):
			return true, fmt.Errorf("%s still has %s after %s", what, busy, o.wait)
		case busy == "":
			fmt.Fprintln(out, unknown)
		}
		return busy == "", nil
	})
	return peers, err
}

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

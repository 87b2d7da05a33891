package operator

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sluice/discovery"
)

// Kind is what is ordered.
type Kind string

const (
	Drain  Kind = "drain"  // no new requests
	Weight Kind = "weight" // a weight in place of the registry's

	Maintenance Kind = "maintenance" // of a service: no new requests
)

// MaxText bounds each text for people, in bytes.
const MaxText = 200

// Order is an order about a peer, or with an empty ID the drain of a node or the maintenance of a
// service. It is immutable.
type Order struct {
	Kind Kind `json:"order"`

	// Service, ID, Address and Machine identify a peer: see discovery.Key. For a Maintenance,
	// Service is the name of the service in sluice.

	Service string `json:"service,omitempty"`
	ID      string `json:"id,omitempty"`
	Address string `json:"address,omitempty"`
	Machine string `json:"machine,omitempty"`

	// Node and Datacenter identify a node. Node of a peer is the node of its registration when the
	// order was given, for people.

	Node       string `json:"node,omitempty"`
	Datacenter string `json:"datacenter,omitempty"`

	Weight int `json:"weight,omitempty"` // of Weight: from 1 to discovery.MaxWeight
	// Except are addresses and networks of clients that a Maintenance does not concern, with commas
	// between them.
	Except string `json:"except,omitempty"`

	Why     string    `json:"why,omitempty"`
	By      string    `json:"by,omitempty"`      // who gave it, as the operator's client says
	Replica string    `json:"replica,omitempty"` // that it was given to
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"` // zero: until it is ended
}

// About returns an order about a peer, without a kind.
func About(peer discovery.Key, node string) Order {
	return Order{Service: peer.Service, ID: peer.ID, Address: peer.Address, Machine: peer.Machine, Node: node}
}

// Peer returns the peer that o is about; the zero Key for a node.
func (o Order) Peer() discovery.Key {
	return discovery.Key{Service: o.Service, ID: o.ID, Address: o.Address, Machine: o.Machine}
}

// OfNode reports whether o is about a node.
func (o Order) OfNode() bool { return o.ID == "" && !o.OfService() }

// OfService reports whether o is about a service.
func (o Order) OfService() bool { return o.Kind == Maintenance }

// Key returns what identifies o: a later order with the same key replaces it.
func (o Order) Key() string {
	switch {
	case o.OfService():
		return serviceKey(o.Service)
	case o.OfNode():
		return nodeKey(o.Node, o.Datacenter)
	}
	return peerKey(o.Peer(), o.Kind)
}

func nodeKey(node, datacenter string) string { return join("nodes", node, datacenter, string(Drain)) }

func peerKey(k discovery.Key, kind Kind) string {
	return join("peers", k.Service, k.ID, k.Address, k.Machine, string(kind))
}

func serviceKey(service string) string { return join("services", service, string(Maintenance)) }

// join returns a key of Consul with the parts that are not empty.
func join(parts ...string) string {
	var kept []string
	for _, p := range parts {
		if p != "" {
			kept = append(kept, escape(p))
		}
	}
	return strings.Join(kept, "/")
}

// escape writes the bytes of a part of a key that could have a meaning as "=XX". Consul decodes
// a percent sign, also one that is escaped.
func escape(part string) string {
	var b strings.Builder
	onlyDots := strings.Trim(part, ".") == "" // the path would be another one
	for i := range len(part) {
		switch c := part[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("_-:[]@+~", c) >= 0, c == '.' && !onlyDots:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02X", c)
		}
	}
	return b.String()
}

// Subject returns what o is about, for people.
func (o Order) Subject() string {
	if o.OfService() {
		return "the service " + o.Service
	}
	if o.OfNode() {
		if o.Datacenter != "" {
			return fmt.Sprintf("the node %s of %s", o.Node, o.Datacenter)
		}
		return "the node " + o.Node
	}
	return fmt.Sprintf("%s/%s (%s)", o.Service, o.ID, o.Address)
}

// String returns o in words: "drain of star/star-1 (10.0.0.1:80)".
func (o Order) String() string {
	switch o.Kind {
	case Weight:
		return fmt.Sprintf("weight %d of %s", o.Weight, o.Subject())
	case Maintenance:
		return "maintenance of " + o.Subject()
	}
	return "drain of " + o.Subject()
}

// Reason returns why a peer is drained, and until when, for people.
func (o Order) Reason() string {
	why := cmp.Or(o.Why, "by an operator")
	if o.OfNode() {
		why = "node " + o.Node + ": " + why
	}
	if !o.Until.IsZero() {
		why += ", until " + o.Until.UTC().Format(time.RFC3339)
	}
	return why
}

// Ends returns when o ends by itself; zero: never.
func (o Order) Ends() time.Time { return o.Until }

// Same reports whether p says the same.
func (o Order) Same(p Order) bool {
	sameTimes := o.Since.Equal(p.Since) && o.Until.Equal(p.Until)
	o.Since, o.Until = p.Since, p.Until
	return sameTimes && o == p
}

// Check returns what is wrong with o.
func (o Order) Check() error {
	for _, text := range []struct{ name, value string }{{"why", o.Why}, {"by", o.By}} {
		if !IsText(text.value) {
			return fmt.Errorf("%s: want up to %d bytes of printable text", text.name, MaxText)
		}
	}
	switch {
	case o.Kind != Drain && o.Kind != Weight && o.Kind != Maintenance:
		return fmt.Errorf("order %q: want drain, weight or maintenance", o.Kind)
	case o.OfService() && (o.Service == "" || o.ID+o.Address+o.Machine+o.Node+o.Datacenter != ""):
		return errors.New("a maintenance is about a service: want its name, and no peer or node")
	case o.Except != "" && !o.OfService():
		return errors.New("only a maintenance has exceptions")
	case len(o.Except) > maxExceptBytes:
		return fmt.Errorf("except: %d bytes: %s", len(o.Except), wantExcept)
	case o.OfNode() && (o.Service != "" || o.Address != "" || o.Machine != ""):
		return errors.New("it has no id: want the id of a peer, or only a node")
	case o.OfNode() && o.Node == "":
		return errors.New("it names neither a peer nor a node")
	case o.OfNode() && o.Kind != Drain:
		return errors.New("a node has no weight")
	case !o.OfNode() && !o.OfService() && (o.Service == "" || o.Address == ""):
		return errors.New("it lacks the service or the address of the peer")
	case o.Kind == Weight && (o.Weight < 1 || o.Weight > discovery.MaxWeight):
		return fmt.Errorf("weight %d: want a number from 1 to %d", o.Weight, discovery.MaxWeight)
	case o.Since.IsZero():
		return errors.New("it lacks the time since when it stands")
	}
	if _, err := json.Marshal(o); err != nil { // such as a time of +24:00: no file could be written
		return err
	}
	_, err := o.except()
	return err
}

// maxExcept bounds the networks of an Order, and maxExceptBytes their text: the longest ones, each
// with a comma and a blank.
const (
	maxExcept      = 32
	maxExceptBytes = maxExcept * len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128, ")
)

var wantExcept = fmt.Sprintf("want up to %d addresses and networks, with commas between them", maxExcept)

// except returns the networks of Except, or what is wrong with it.
func (o Order) except() (networks []netip.Prefix, err error) {
	if o.Except == "" {
		return nil, nil
	}
	for text := range strings.SplitSeq(o.Except, ",") {
		text = strings.Trim(text, " ")
		network, err := netip.ParsePrefix(text)
		if address, isAddress := netip.ParseAddr(text); isAddress == nil && address.Zone() == "" {
			network, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		if err != nil || network.Addr().Is4In6() {
			return nil, fmt.Errorf("except %.100q: %s", text, wantExcept)
		}
		networks = append(networks, network)
	}
	if len(networks) > maxExcept {
		return nil, fmt.Errorf("except: %d networks: %s", len(networks), wantExcept)
	}
	return networks, nil
}

// IsText reports whether a text of an operator may be kept and shown.
func IsText(s string) bool {
	return len(s) <= MaxText && utf8.ValidString(s) && !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) })
}

func parse(key string, value []byte) (o Order, err error) {
	if err := json.Unmarshal(value, &o); err != nil {
		return o, fmt.Errorf("not an order: %w", err)
	}
	if err := o.Check(); err != nil {
		return o, err
	}
	if o.Key() != key {
		return o, fmt.Errorf("its order belongs to the key %s", o.Key())
	}
	return o, nil
}

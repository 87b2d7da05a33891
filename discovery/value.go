package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"sluice/observe/excerpt"
)

// ParseValue returns the instance that a value of a key-value store describes. service and
// id are its Service and ID. The value is one of
//
//	{"host": "10.0.0.1", "port": 8080, "weight": 2, "tags": ["v2"], "meta": {"zone": "a"}}
//	10.0.0.1:8080
//	10.0.0.1_8080
//
// weight is from 0 to [MaxWeight], 1 by default; 0: no traffic. weight, tags and meta may be
// absent. The port may be a text, and other members have no effect. {"Addr": "HOST:PORT"} is
// also accepted, as gRPC's resolver for etcd writes it. An IPv6 address that a colon follows
// is in brackets. The instance is passing. The error says what is wrong with the value.
func ParseValue(service, id string, value []byte) (Instance, error) {
	i := Instance{Service: service, ID: id, Weight: 1}
	value = bytes.TrimSpace(value)
	if len(value) == 0 {
		return Instance{}, errors.New(`empty: want {"host": "HOST", "port": PORT}, HOST:PORT or HOST_PORT`)
	}
	var err error
	if value[0] == '{' {
		err = i.readObject(value)
	} else {
		err = i.readAddress(string(value))
	}
	if excess := i.Excess(); err == nil && excess != "" {
		err = errors.New(excess)
	}
	if err != nil {
		return Instance{}, err
	}
	return i, nil
}

// maxValues is the maximum number of instances in a text.
const maxValues = 65536

// ParseValues returns the instances that a text describes: a JSON list of the values of
// [ParseValue], or such values one per line, of which the first may be the only one. Empty lines,
// and lines that begin with #, have no effect; an address may have " weight=N" after it. service
// is their Service; the id of an instance is its address. The empty list [] is valid, a text
// without a value is not: it may be a file that is being written. The error says where what is
// wrong, and then there are no instances.
func ParseValues(service string, text []byte) ([]Instance, error) {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return nil, errors.New("empty: want [] for no instances")
	}
	values, where, err := splitValues(text)
	if err != nil {
		return nil, err
	}
	if len(values) > maxValues {
		return nil, fmt.Errorf("%d values: want at most %d", len(values), maxValues)
	}
	set := make([]Instance, 0, len(values))
	first := make(map[Key]int, len(values))
	for n, value := range values {
		value = bytes.TrimSpace(value)
		if where == "line" && (len(value) == 0 || value[0] == '#') {
			continue
		}
		i, err := parseElement(service, value)
		if err == nil && first[i.Key()] > 0 {
			err = fmt.Errorf("%s is also in %s %d", i.ID, where, first[i.Key()])
		}
		if err != nil {
			if where == "value" {
				return nil, err
			}
			return nil, fmt.Errorf("%s %d: %w", where, n+1, err)
		}
		first[i.Key()] = n + 1
		set = append(set, i)
	}
	if len(set) == 0 && where == "line" {
		return nil, errors.New("no address: want [] for no instances")
	}
	return set, nil
}

// splitValues divides a text, which is not empty. where is what each part is.
func splitValues(text []byte) (values [][]byte, where string, err error) {
	if text[0] == '{' {
		return [][]byte{text}, "value", nil
	}
	var list []json.RawMessage
	err = json.Unmarshal(text, &list)
	_, _, notAddress := net.SplitHostPort(string(bytes.Fields(text)[0])) // as [::1]:80 is
	if text[0] != '[' || err != nil && notAddress == nil {
		return bytes.Split(text, []byte("\n")), "line", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("not a valid JSON list: %w", err)
	}
	for _, value := range list {
		values = append(values, value)
	}
	return values, "element", nil
}

// parseElement parses one of several values.
func parseElement(service string, value []byte) (Instance, error) {
	text := string(value)
	if text[0] == '"' {
		if err := json.Unmarshal(value, &text); err != nil {
			return Instance{}, fmt.Errorf("not a valid JSON text: %w", err)
		}
	}
	weight, weighted := "", false
	if !strings.HasPrefix(text, "{") {
		text, weight, weighted = strings.Cut(strings.TrimSpace(text), " weight=")
	}
	i, err := ParseValue(service, "", []byte(text))
	if err == nil && weighted {
		n, wrong := strconv.ParseUint(weight, 10, 16)
		if i.Weight = int(n); wrong != nil {
			err = fmt.Errorf("weight=%s: want weight=0 to weight=%d", shortened(weight), MaxWeight)
		}
	}
	if err != nil {
		return Instance{}, err
	}
	i.ID = i.HostPort()
	return i, nil
}

// readObject sets i's fields from a JSON object.
func (i *Instance) readObject(text []byte) error {
	var object struct {
		Host   string
		Port   json.RawMessage
		Addr   string
		Weight *int
		Tags   []string
		Meta   map[string]string
	}
	if err := json.Unmarshal(text, &object); err != nil {
		// The error may have a number as long as the text.
		return fmt.Errorf("not a valid JSON object: %s", shortened(err.Error()))
	}
	if object.Weight != nil {
		if i.Weight = *object.Weight; i.Weight < 0 || i.Weight > MaxWeight {
			return fmt.Errorf(`"weight" %d: want 0 to %d`, i.Weight, MaxWeight)
		}
	}
	i.Tags, i.Meta = object.Tags, object.Meta
	if object.Addr != "" && object.Host == "" {
		return i.readAddress(object.Addr)
	}
	if object.Host == "" {
		return errors.New(`"host" is missing: want {"host": "HOST", "port": PORT}`)
	}
	if object.Port == nil {
		return errors.New(`"port" is missing: want a number from 1 to 65535`)
	}
	return i.setAddress(object.Host, strings.Trim(string(object.Port), `"`))
}

// readAddress sets i's address from HOST:PORT or HOST_PORT.
func (i *Instance) readAddress(text string) error {
	if host, port, err := net.SplitHostPort(text); err == nil {
		return i.setAddress(host, port)
	}
	cut := strings.LastIndexByte(text, '_')
	if cut < 0 {
		return fmt.Errorf(`%q: want {"host": "HOST", "port": PORT}, HOST:PORT or HOST_PORT`, shortened(text))
	}
	return i.setAddress(text[:cut], text[cut+1:])
}

func (i *Instance) setAddress(host, port string) error {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("port %q: want a number from 1 to 65535", shortened(port))
	}
	if !MayBeInstance(host) {
		return fmt.Errorf("host %q: want a host name or an IP address", shortened(host))
	}
	i.Address, i.Port = host, int(n)
	return nil
}

// shortened returns the start of a text for a message.
func shortened(text string) string { return excerpt.Of(text, 80) }

// IsHost reports whether s is an IP address or a host name; see [IsHostName].
func IsHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return IsHostName(s)
}

// MayBeInstance reports whether a registry may name s as an instance's host: as IsHost, but without
// a zone, which may be any text, of an interface on another machine.
func MayBeInstance(s string) bool { return IsHost(s) && !strings.Contains(s, "%") }

// IsHostName reports whether s is a host name as in RFC 1123, section 2.1. The underscore,
// which is common in internal names, and a dot at the end are allowed.
func IsHostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	// The last label of a name is not a number: "1.2.3" and "300.1.1.1" are mistyped addresses.
	last := s[strings.LastIndexByte(s, '.')+1:]
	return strings.Trim(last, "0123456789") != ""
}

package fabio

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"sluice/tags"
)

// optionNames are the keys of options.
var optionNames = []string{
	"allow", "auth", "deny", "grpcservername", "host", "prepend", "proto", "pxyproto", "redirect", "register", "strip",
	"tlsskipverify", "weight",
}

// maxWeight limits the weight of an instance. Weights above 1 count in proportion.
const maxWeight = 1000

func isOption(key string) bool { return slices.Contains(optionNames, key) }

// values returns the options, each of the form KEY=VALUE. As in fabio, the last of several with
// one key counts.
func (r *reader) values(fields []string) map[string]string {
	values := make(map[string]string)
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		if meant := restriction(key); !isOption(key) && meant != "" {
			r.closeRoute(field, "no option of fabio (did you mean "+meant+"?)")
			continue
		}
		if !isOption(key) {
			r.complain(field, "no option of fabio: ignored", true)
			continue
		}
		values[key] = value
	}
	return values
}

// restriction returns the option about who may use a route that a key is, with at most one letter
// that is missing, wrong or too many, or two that are swapped; "": none.
func restriction(key string) string {
	for _, option := range []string{"allow", "deny", "auth"} {
		a, b := strings.ToLower(key), option
		for a != "" && b != "" && a[0] == b[0] {
			a, b = a[1:], b[1:]
		}
		swapped := len(a) > 1 && len(b) > 1 && a[0] == b[1] && a[1] == b[0] && a[2:] == b[2:]
		if after(a) == b || a == after(b) || after(a) == after(b) || swapped {
			return option
		}
	}
	return ""
}

// after returns a text without its first byte.
func after(text string) string { return text[min(1, len(text)):] }

// options reads the options of a route of requests.
func (r *reader) options(values map[string]string) {
	if !r.unread {
		r.upstream(values)
	}
	r.paths(values)
	r.access(values)
	if value, ok := values["host"]; ok && value != "" {
		if value == "dst" {
			value = "peer"
		}
		r.route.Keys["host_header"] = value
	}
	if value, ok := values["weight"]; ok {
		switch share, err := strconv.ParseFloat(value, 64); {
		case err != nil || math.IsNaN(share):
			r.complain("weight=", "not a number: ignored", true)
		case share > maxWeight:
			r.complain("weight=", "want at most 1000, such as 0.2 for a fifth of the requests: ignored", true)
		case share > 0:
			r.route.Weight = share
		}
	}
	if _, ok := values["register"]; ok {
		r.complain("register=", "sluice registers nothing for a service: ignored", true)
	}
}

// upstream reads how the instance wants to be asked.
func (r *reader) upstream(values map[string]string) {
	upstream, secure := make(tags.Keys), make(tags.Keys)
	switch proto := values["proto"]; proto {
	case "", "http":
		secure = nil
	case "https":
	case "grpc":
		upstream["protocol"] = "h2c"
		secure = nil
	case "grpcs":
		upstream["protocol"] = "h2"
	default:
		r.refuse("proto=", "unknown protocol "+strconv.Quote(proto)+": want http, https, grpc, grpcs or tcp")
		return
	}
	skip, _ := strconv.ParseBool(values["tlsskipverify"])
	if secure != nil {
		if name := values["grpcservername"]; name != "" {
			secure["server_name"] = name
		}
		if skip {
			secure["skip_verify"] = "true"
		}
		upstream["tls"] = secure
	} else if skip {
		r.complain("tlsskipverify=", "only with proto=https or proto=grpcs: ignored", true)
	}
	if _, ok := values["pxyproto"]; ok {
		r.complain("pxyproto=", "only for TCP: ignored; want proxy_protocol of the service in the file", true)
	}
	if !r.reading.Set(tags.Keys{"upstream": upstream}, r.tag) {
		r.refused = true
	}
}

// paths reads what changes the path, and redirects.
func (r *reader) paths(values map[string]string) {
	for _, pair := range [...][2]string{{"strip", "strip_prefix"}, {"prepend", "add_prefix"}} {
		option, key := pair[0], pair[1]
		value := values[option]
		switch {
		case value == "":
		case value[0] != '/':
			r.refuse(option+"=", "want a path that begins with /")
		default:
			r.route.Keys[key] = value
		}
	}
	value, ok := values["redirect"]
	if !ok {
		return
	}
	code, to, both := strings.Cut(value, ",")
	number, err := strconv.Atoi(code)
	switch {
	case !both || err != nil || strings.Contains(to, ","):
		r.refuse("redirect=", "want redirect=CODE,URL")
	case number < 300 || number > 399:
		r.refuse("redirect=", "want a code from 300 to 399")
	default:
		// fabio takes "/$path" as "$path", and puts the query into it.
		to = strings.Replace(to, "/$path", "$path", 1)
		r.route.Keys["redirect"] = tags.Keys{"to": to, "code": code}
	}
}

// access reads who may use the route.
func (r *reader) access(values map[string]string) {
	if name, ok := values["auth"]; ok { // a scheme of fabio's own configuration
		r.route.Keys["use"] = []string{name}
	}
	if values["allow"] != "" && values["deny"] != "" {
		r.closeRoute("allow=", "want allow or deny, not both")
		return
	}
	for _, key := range []string{"allow", "deny"} {
		value, ok := values[key]
		if !ok {
			continue
		}
		var networks []string
		for item := range strings.SplitSeq(value, ",") {
			kind, text, _ := strings.Cut(item, ":")
			network, ok := tags.Network(text)
			if !ok || strings.ToLower(strings.TrimSpace(kind)) != "ip" {
				r.closeRoute(item, "want ip:ADDRESS or ip:NETWORK, with commas between them")
				return
			}
			networks = append(networks, network)
		}
		r.route.Keys[key] = networks
	}
}

package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"sluice/config/decoding"
	"sluice/proxy/accesslog"
	"sluice/route"
	"sluice/tags"
)

// schema is what the decoder knows besides the types.
var schema = &decoding.Schema{
	Formats:    formats,
	OtherNames: map[string]string{"insecure": "skip_verify", "insecure_skip_verify": "skip_verify", "limits": "rate_limit", "limit": "rate_limit"},
	IsVariable: func(name string) bool { return route.IsVariable(name) || accesslog.IsVariable(name) },
	Nested: map[reflect.Type]decoding.Nesting{reflect.TypeFor[Conditions](): {
		Depth: maxConditionsDepth, TooDeep: fmt.Sprintf("nested too deeply: want at most %d levels of not and any", maxConditionsDepth),
		Count: maxConditions, TooMany: fmt.Sprintf("too many conditions: want at most %d for a route", maxConditions),
	}},
}

// decoder decodes a document, or keys of tags, and checks them.
type decoder struct {
	*decoding.Decoder
	by    Setter // of the tree
	whole *whole // the configuration that the tree is a part of; nil: none
}

// newDecoder returns a decoder for the tree of file.
func newDecoder(file string) *decoder { return &decoder{Decoder: schema.Decoder(file)} }

// newRestricted returns a decoder that sets only what a setter may set. The tree is one of keys
// with these rights.
func newRestricted(file string, by Setter, rights *decoding.Rights) *decoder {
	d := newDecoder(file)
	if d.by = by; by != ByFile {
		d.Restrict(decoding.Setters(by), by.String(), rights)
	}
	if by == ByTag || by == ByRegistration {
		d.AlsoAllowed = shortKeys
	}
	return d
}

// shortKeys are the names in tags that stand for keys of a route.
var shortKeys = map[reflect.Type][]string{routeType: slices.Sorted(maps.Keys(tags.ShortKeys))}

// onlyInTheFile are the keys that no other document has.
var onlyInTheFile = func() map[string]string {
	misplaced := make(map[string]string)
	for _, f := range decoding.Fields(reflect.TypeFor[Config]()) {
		misplaced[f.Tag.Get("key")] = "only in the configuration file"
	}
	return misplaced
}()

// bounded reports whether the regular expressions of the tree are: see route.Route.
func (d *decoder) bounded() bool { return d.by&^ByFile != 0 }

// given is a key, and whether it is set.
type given struct {
	key string
	set bool
}

// setKeys returns those of the keys that are set.
func setKeys(keys []given) (set []string) {
	for _, k := range keys {
		if k.set {
			set = append(set, k.key)
		}
	}
	return set
}

// refuseOption records an error of package route about an option in the section at key, if there is
// one.
func refuseOption(d *decoder, key string, err error) {
	if wrong, ok := errors.AsType[*route.OptionError](err); ok {
		d.Refuse(decoding.Join(key, wrong.Key), wrong.Value, wrong.Err.Error())
	}
}

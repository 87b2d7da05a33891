package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"sluice/config/decoding"
	"sluice/route"
)

// NamedActions are actions that routes use by a name, which only the file defines.
type NamedActions struct {
	Use       []string `key:"use"`                               // as [Route.Use]
	OfferedTo []string `key:"offered_to" oneof:"documents|tags"` // who may use them besides the file
	Actions
}

// offered reports whether a setter may use the actions. The meta of a service is as its tags.
func (n *NamedActions) offered(to Setter) bool {
	switch to {
	case ByDocument:
		return slices.Contains(n.OfferedTo, "documents")
	case ByTag, ByRegistration:
		return slices.Contains(n.OfferedTo, "tags")
	}
	return true
}

// checkActions adds to named actions the ones that they use, and checks them. Routes get copies.
func (c *Config) checkActions(d *decoder) {
	done := make(map[string]bool) // false: it is about to be
	var check func(name string)
	check = func(name string) {
		n, key := c.Actions[name], decoding.Join("actions", name)
		done[name] = false
		for i, used := range n.Use {
			finished, begun := done[used]
			if _, there := c.Actions[used]; there && !begun {
				check(used)
			} else if begun && !finished {
				d.Refuse(decoding.Item(key+".use", i), used, "these actions use themselves: want no circle")
			}
		}
		n.use(d, key, n.Use, c.Actions)
		if !d.Failed("actions") { // else one error could be found at each that uses the actions
			n.build(d, "", key)
			n.openFiles(d, key)
		}
		n.built = nil
		c.Actions[name], done[name] = n, true
	}
	for _, name := range slices.Sorted(maps.Keys(c.Actions)) {
		if _, begun := done[name]; !begun {
			check(name)
		}
	}
}

// use adds the named actions of a list, with its key "use" below a key. What a says itself wins,
// and then a later name over an earlier one, but no restriction is lost: see add.
func (a *Actions) use(d *decoder, key string, names []string, named map[string]NamedActions) {
	for i, name := range slices.Backward(names) {
		n, known := named[name]
		want := ""
		switch {
		case !known:
			offered := slices.DeleteFunc(slices.Sorted(maps.Keys(named)), func(name string) bool {
				of := named[name]
				return !of.offered(d.by)
			})
			want = "the file has no actions with this name" + decoding.DidYouMean(name, offered)
			if len(offered) > 0 {
				want += " (known: " + strings.Join(offered, ", ") + ")"
			}
		case !n.offered(d.by):
			want = d.by.String() + " cannot use these actions: want offered_to: [" +
				map[bool]string{true: "documents", false: "tags"}[d.by == ByDocument] + "] in the file"
		default:
			if twice := a.add(&n.Actions, nil); twice != "" {
				want = "these actions have another " + twice + ", and neither may be lost: want one of them"
			}
		}
		if want != "" {
			d.Refuse(decoding.Item(decoding.Join(key, "use"), i), name, want)
		}
	}
}

// add adds copies of the keys of other that a has not. Restrictions of both count: clients must be
// in both allow lists and in no deny list, and the smaller body_limit counts. It returns the key of
// a restriction of which only one can count. alone reports whether what a says of a key, or that it
// says nothing, counts alone; nil: of none.
func (a *Actions) add(other *Actions, alone func(key string, empty bool) bool) (twice string) {
	to, from := reflect.ValueOf(a).Elem(), reflect.ValueOf(other).Elem()
	for _, f := range decoding.Fields(reflect.TypeFor[Actions]()) {
		mine, theirs := to.FieldByIndex(f.Index), from.FieldByIndex(f.Index)
		key := f.Tag.Get("key")
		if theirs.IsZero() || alone != nil && alone(key, mine.IsZero()) {
			continue
		}
		if mine.IsZero() {
			mine.Set(copied(theirs))
			a.Variables = append(slices.Clip(a.Variables), other.Variables.Below(key)...)
			continue
		}
		switch key {
		case "allow":
			if a.Allow = both(a.Allow, other.Allow); len(a.Allow) == 0 {
				twice = key
			}
		case "deny":
			for _, network := range other.Deny {
				if !slices.Contains(a.Deny, network) {
					a.Deny = append(slices.Clip(a.Deny), network)
				}
			}
		case "body_limit":
			a.BodyLimit = new(min(*a.BodyLimit, *other.BodyLimit))
		case "request_headers":
			a.RequestHeaders = a.RequestHeaders.with(other.RequestHeaders)
		case "response_headers":
			a.ResponseHeaders = a.ResponseHeaders.with(other.ResponseHeaders)
		case "client_certificates", "basic_auth", "jwt", "forward_auth", "rate_limit":
			if !reflect.DeepEqual(mine.Interface(), theirs.Interface()) {
				twice = key
			}
		}
	}
	return twice
}

// copied returns a copy of the value of a key, which can be completed without a change of v.
func copied(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.Pointer:
		c := reflect.New(v.Type().Elem())
		c.Elem().Set(v.Elem())
		return c
	case reflect.Slice:
		return reflect.AppendSlice(reflect.MakeSlice(v.Type(), 0, v.Len()), v)
	}
	return v
}

// both returns the networks of the clients that are in a network of a and in one of b.
func both(a, b []Network) (all []Network) {
	x, y := route.Unmapped(Values(a)), route.Unmapped(Values(b))
	for i := range a {
		for j := range b {
			narrower := b[j]
			if x[i].Bits() >= y[j].Bits() {
				narrower = a[i]
			}
			if x[i].Overlaps(y[j]) && !slices.Contains(all, narrower) {
				all = append(all, narrower)
			}
		}
	}
	return all
}

// with returns the edits of e, and those of other of fields that e does not edit.
func (e *HeaderEdits) with(other *HeaderEdits) *HeaderEdits {
	edited := slices.Concat(slices.Collect(maps.Keys(e.Set)), slices.Collect(maps.Keys(e.Add)), e.Remove)
	mine := func(name string) bool {
		return slices.ContainsFunc(edited, func(own string) bool { return strings.EqualFold(own, name) })
	}
	all := HeaderEdits{Set: make(map[string]Secret), Add: make(map[string]Secret)}
	for to, from := range map[*map[string]Secret]map[string]Secret{&all.Set: other.Set, &all.Add: other.Add} {
		maps.Copy(*to, from)
		maps.DeleteFunc(*to, func(name string, _ Secret) bool { return mine(name) })
	}
	maps.Copy(all.Set, e.Set)
	maps.Copy(all.Add, e.Add)
	all.Remove = append(slices.Clone(e.Remove), slices.DeleteFunc(slices.Clone(other.Remove), mine)...)
	return &all
}

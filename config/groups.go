package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sluice/balancer"
	"sluice/config/decoding"
	"sluice/release/judge"
	"sluice/route"
)

// Group selects the instances of a service that meet all of its conditions. At least one
// is set. An instance belongs to the first group, in the order of their names, that
// selects it, and else to the group balancer.RestGroup.
type Group = balancer.Selector

// Split divides clients among groups of a service. Its keys are names of groups, whose
// values are shares, and "key" and "fallback".
type Split map[string]decoding.Parsed[string, Portion]

// Portion is a value of a Split: a share, or what identifies a client.
type Portion struct {
	Share float64 // from 0 to 1
	Key   route.SplitKey
}

// Judge moves the share of the one group of a service's Split: to 0 if the group fails more
// often than the rest or is slower, and else through its steps.
type Judge struct {
	Act string `key:"act" default:"rollback" oneof:"rollback|report"` // report: only say what it finds
	judge.Settings
}

// Keys of a Split that are not groups.
const (
	splitKey      = "key"      // what identifies a client, as in route.ParseSplitKey
	splitFallback = "fallback" // the group that gets the requests to an empty one
)

// EntryFormat returns the format of the value of a key.
func (Split) EntryFormat(name string) string {
	switch name {
	case splitKey:
		return "split_key"
	case splitFallback, balancer.RestGroup:
		return "group"
	}
	return "share"
}

// Share is the part of a Split that one group gets.
type Share struct {
	Group string
	Size  float64 // from 0 to 1
}

// Shares returns the shares by group name, in this order, without the share of the rest.
func (s Split) Shares() []Share {
	if len(s) == 0 {
		return nil // most routes have none: a sort of nothing allocates
	}
	var shares []Share
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if name != splitKey && name != splitFallback {
			shares = append(shares, Share{name, s[name].Value.Share})
		}
	}
	return shares
}

// Key returns what identifies a client. The default is the zero value: a cookie.
func (s Split) Key() route.SplitKey { return s[splitKey].Value.Key }

// Fallback returns the name of the group that gets the requests to an empty one, or "".
func (s Split) Fallback() string { return s[splitFallback].Text }

// checkGroups checks the groups of a service and the split of its routes.
func (s *Service) checkGroups(d *decoder, key string) {
	first := make(map[string]string, len(s.Groups))
	for _, name := range slices.Sorted(maps.Keys(s.Groups)) {
		group, g := decoding.Join(key, "groups."+name), s.Groups[name]
		switch {
		case name == balancer.RestGroup || name == splitKey || name == splitFallback:
			d.Refuse(group, name, "this name has a meaning of its own: want another")
		case reflect.DeepEqual(g, Group{}):
			if !d.Failed(group) {
				d.Refuse(group, "", "without a condition: want tags or meta; the instances that no group selects are the group "+balancer.RestGroup)
			}
		default:
			d.RefuseDuplicate(first, fmt.Sprint(g), group, "")
		}
	}
	s.Split.check(d, s, decoding.Join(key, "split"))
	s.checkJudge(d, decoding.Join(key, "judge"))
}

func (s *Service) checkJudge(d *decoder, key string) {
	if s.Judge == nil {
		return
	}
	if len(s.Split.Shares()) != 1 {
		d.Refuse(key, "", "needs a split of the service with the share of one group")
	}
	for i, step := range s.Judge.Steps {
		if at := fmt.Sprintf("%s.steps[%d]", key, i); i > 0 && step <= s.Judge.Steps[i-1] && !d.Failed(at) {
			d.Refuse(at, Percent(float64(step)), "want more than the step before")
		}
	}
}

// WithShare returns the split with another share of its one group.
func (s Split) WithShare(share float64) Split {
	changed := maps.Clone(s)
	changed[s.Shares()[0].Group] = decoding.Parsed[string, Portion]{Text: strconv.FormatFloat(share, 'g', -1, 64), Value: Portion{Share: share}}
	return changed
}

// check checks a split of the requests to a service.
func (s Split) check(d *decoder, of *Service, key string) {
	sum := 0.
	for _, name := range slices.Sorted(maps.Keys(s)) {
		at, text := decoding.Join(key, name), s[name].Text
		switch name {
		case splitKey:
			s.needText(d, at, name)
		case splitFallback:
			of.checkGroup(d, at, text, true)
		case balancer.RestGroup:
			d.Refuse(at, text, "not a share: this group gets what the others leave")
		default:
			if s.needText(d, at, name) {
				sum += s[name].Value.Share
				of.checkGroup(d, at, name, false)
			}
		}
	}
	if sum > 1+1e-9 {
		d.Refuse(key, "", fmt.Sprintf("the shares add up to %s, want at most 100%%", Percent(sum)))
	}
	if len(s) > 0 && len(s.Shares()) == 0 && !d.Failed(key) {
		d.Refuse(key, "", "without a share: want at least one, such as \"canary: 5%\"")
	}
}

// needText checks that a key of a Split has a value.
func (s Split) needText(d *decoder, key, name string) bool {
	given := s[name].Text != ""
	if !given && !d.Failed(key) {
		d.Refuse(key, "", "want "+formats[s.EntryFormat(name)].Want)
	}
	return given
}

// Percent returns a share for people, such as 5%.
func Percent(share float64) string { return fmt.Sprintf("%.4g%%", 100*share) }

// ParseShare reads a share as in the file: 0.05 or 5%.
func ParseShare(text string) (float64, error) {
	size, ok := decoding.ParseRatio(text)
	if !ok || size < 0 || size > 1 {
		return 0, fmt.Errorf("share %q: want %s", text, wantShare)
	}
	return size, nil
}

const wantShare = "a number from 0 to 1, or a percentage"

// checkGroup checks the name of a group of s. rest: RestGroup is allowed, if there are
// groups.
func (s *Service) checkGroup(d *decoder, key, name string, rest bool) {
	if _, known := s.Groups[name]; known || rest && name == balancer.RestGroup && len(s.Groups) > 0 {
		return
	}
	names := slices.Sorted(maps.Keys(s.Groups))
	if len(names) == 0 {
		d.Refuse(key, name, "the service has no groups")
		return
	}
	if rest {
		names = append(names, balancer.RestGroup)
	}
	d.Refuse(key, name, "no such group (known: "+strings.Join(names, ", ")+")")
}

// checkGroups checks the group and the split of a route to s.
func (r *Route) checkGroups(d *decoder, s *Service, key string) {
	if r.Group != "" {
		if len(r.Split) > 0 {
			d.Refuse(decoding.Join(key, "group"), r.Group, "not with split: want one of them")
		}
		s.checkGroup(d, decoding.Join(key, "group"), r.Group, true)
	}
	r.Split.check(d, s, decoding.Join(key, "split"))
}

// divides reports whether a route names groups of its service.
func (r *Route) divides() bool { return r.Group != "" || len(r.Split) > 0 }

// hasGroup reports whether s has a group with that name; "" is none.
func (s *Service) hasGroup(name string) bool {
	_, known := s.Groups[name]
	return known || name == "" || name == balancer.RestGroup && len(s.Groups) > 0
}

// missingTarget returns why the requests of a route cannot be forwarded, if a service or group of
// it is not in services, or "".
func missingTarget(r *Route, services map[string]Service) string {
	for _, part := range r.Divided() {
		if missing := missingTarget(&part.Route, services); missing != "" {
			return missing
		}
	}
	return missing(services, r.Service, !r.hasService() && r.needsService(), r.groups()...)
}

// groups returns the names of the groups of its service that a route names; "" is none.
func (r *Route) groups() []string {
	names := []string{r.Group, r.Split.Fallback()}
	for _, share := range r.Split.Shares() {
		names = append(names, share.Group)
	}
	return names
}

// missing says that there is no service with this name, or that it lacks one of the groups; "": all
// are there. Without a name only a needed service is missing.
func missing(services map[string]Service, name string, needed bool, groups ...string) string {
	s, ok := services[name]
	if !ok && (name != "" || needed) {
		return fmt.Sprintf("there is no service %q", name)
	}
	for _, group := range groups {
		if !s.hasGroup(group) {
			return fmt.Sprintf("the service %q has no group %q", name, group)
		}
	}
	return ""
}

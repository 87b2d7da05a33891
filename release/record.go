package release

import (
	"fmt"
	"maps"
	"slices"

	"sluice/config"
)

// Record calls add for each given share that has changed since the last call, and counts now, with a
// reason for people and the change of the key. It must not be called concurrently.
func (s *Shares) Record(add func(reason string, diff []config.Change)) {
	now := s.Counting()
	for _, service := range slices.Sorted(maps.Keys(now)) {
		given, before := now[service], s.recorded[service]
		if given.Same(before) {
			continue
		}
		if before.By == "" {
			before.Share = given.Configured
		}
		add(s.change(given, before.Share))
	}
	for _, service := range slices.Sorted(maps.Keys(s.recorded)) {
		before := s.recorded[service]
		if _, counts := now[service]; counts {
			continue
		}
		if _, stands := s.All()[before.Key()]; stands {
			now[service] = before // its split may be to come
		} else if s.fits(before) { // else the configuration's revision says it
			given := before
			given.Share, given.By, given.Why = before.Configured, ByOperator, "the share of the configuration again"
			add(s.change(given, before.Share))
		}
	}
	s.recorded = now
}

// change returns the reason and the difference of a revision with a given share.
func (s *Shares) change(given Share, before float64) (reason string, diff []config.Change) {
	change := config.Change{
		Key:    "services." + given.Service + ".split." + given.Group,
		Before: config.Percent(before), After: config.Percent(given.Share),
	}
	by := given.By
	if given.Replica != s.options.Replica() && given.Replica != "" {
		by += " of " + given.Replica
	}
	reason = fmt.Sprintf("%s: %s", by, change)
	if change.Before == change.After {
		reason = fmt.Sprintf("%s: %s: %s stays", by, change.Key, change.After)
	}
	if given.Why != "" {
		reason += ": " + given.Why
	}
	return reason, []config.Change{change}
}

package doctor

import (
	"cmp"
	"fmt"
	"strings"

	"sluice/config"
	"sluice/tags"
	"sluice/tags/catalog"
	"sluice/tags/claim"
)

// tagged are the services whose tags ask for routes, as sluice sees them, and what they get.
// The zero value is for a configuration without tags.
type tagged struct {
	instances map[string]map[claim.Named]Instance // by sluice's name of the service
	result    claim.Result
	routed    map[string]bool // services of Consul that a tag gives a route
}

// resolveTags resolves the tags of the services of the configuration, and of those that sluice
// would find in the catalog.
func (f *Facts) resolveTags() tagged {
	t := tagged{instances: make(map[string]map[claim.Named]Instance), routed: make(map[string]bool)}
	if f.Config == nil || !claim.NewReader(f.Config).Reads() {
		return t
	}
	reader, selected := claim.NewReader(f.Config), catalog.SelectionOf(f.Config)
	selected.TagPrefixes = nil // an instance without such tags may have a service with them
	services := make(map[string]*claim.Service)
	asks := make(map[string]bool)
	add := func(name, inConsul string, i Instance) {
		if i.Unusable != "" {
			return
		}
		if services[name] == nil {
			services[name] = &claim.Service{Name: name, InConsul: inConsul}
			t.instances[name] = make(map[claim.Named]Instance)
		}
		t.instances[name][claim.Named{ID: i.ID, Node: i.Node}] = i
		services[name].Instances = append(services[name].Instances, claim.Instance{
			ID: i.ID, Node: i.Node, Age: claim.AgeOf(&i.Instance), Meta: i.Meta, Readings: reader.Read(inConsul, &i.Instance),
		})
		asks[name] = asks[name] || reader.Profile(&i.Instance) != ""
	}
	configured := map[string]bool{strings.ToLower(f.Own): true} // by name in Consul, in any case
	for _, u := range f.Uses {
		if u.Name == "" {
			continue
		}
		configured[strings.ToLower(u.Service)], configured[strings.ToLower(u.Name)] = true, true
		for _, i := range u.Instances {
			add(u.Name, cmp.Or(u.Service, u.Name), i)
		}
	}
	for _, i := range f.Instances {
		if !configured[strings.ToLower(i.Service)] && selected.Selects(&i.Instance) {
			add(i.Service, i.Service, i)
		}
	}
	var list []claim.Service
	for name, s := range services {
		if asks[name] {
			list = append(list, *s)
		}
	}
	t.result = claim.Resolve(list, claim.NewRules(f.Config), nil)
	for _, r := range t.result.Routes {
		for _, by := range r.Claims() {
			for _, i := range t.instances[by.Service] {
				t.routed[i.Service] = true
			}
		}
	}
	return t
}

// findings are about tags that ask for routes, one for each instance.
func (t tagged) findings() (findings []Finding) {
	for _, p := range t.result.Problems {
		finding := tagFinding(p)
		for _, named := range p.Instances {
			findings = append(findings, finding.about(t.instances[p.Service][named]))
		}
	}
	return findings
}

func (f Finding) about(i Instance) Finding {
	f.Service, f.ID, f.Node, f.Address = i.Service, i.ID, i.Node, i.address()
	return f
}

// tagFinding returns the finding of a problem, without its instance.
func tagFinding(p claim.Problem) Finding {
	at := ""
	if p.Column > 0 {
		at = fmt.Sprintf(", column %d", p.Column)
	}
	what, asker := origin(p.Ask), "tag"
	f := Finding{Severity: SeverityError, Code: CodeTagBad, Seen: what + at + ": " + p.Reason}
	correct := "Correct the tag and register the instance again."
	remove := "Remove the tag, or the route that it competes with. catalog.claims says which service may have a route."
	if p.Dialect == config.DialectDefault {
		asker = "default rule"
		correct = "Give the service a route in a tag or in the file, or let catalog.select leave it out."
		remove = correct
	}
	switch {
	case p.Kind == claim.KindConflict && p.Winner != nil:
		f.Code = CodeTagConflict
		f.Seen = fmt.Sprintf("%s asks for the same requests as %s of the service %s", what, origin(*p.Winner), p.Winner.Service)
		f.Why = "One of the two services gets all of these requests: the one that has the route keeps it, and at the start of sluice the one with the smaller name gets it."
		f.Do = remove
	case p.Kind == claim.KindConflict:
		f.Severity, f.Code = SeverityWarning, CodeTagConflict
		f.Why = "The route of the file gets these requests, the " + asker + " none."
		f.Do = remove
	case p.Kind == claim.KindRefused:
		f.Severity, f.Code = SeverityWarning, CodeTagRefused
		f.Why = "The configuration does not allow this to the service: the " + asker + " makes no route."
		if p.Harmless {
			f.Severity = SeverityNotice
			f.Why = "The configuration does not allow this to the service: the route exists without it."
		}
		f.Do = "If the service may have it, allow it in the section catalog of the file. If not: " + correct
	case p.Kind == claim.KindDifferent:
		f.Severity, f.Code = SeverityNotice, CodeTagsDiffer
		f.Why = "The instance gets no requests by this route until the older instances, which ask for something else, have gone."
		f.Do = "Nothing during a release. Else register all instances with the same tags."
	case p.Harmless:
		f.Severity = SeverityNotice
		f.Why = "The route exists without what the tag asks for here."
		f.Do = "Correct the tag, or set this in the file."
	default:
		f.Why = "The " + asker + " makes no route, or one that denies every request if it was to be for some clients only."
		f.Do = correct
	}
	return f
}

// origin names what asks for a route: a tag, or the default rule.
func origin(a claim.Ask) string {
	if a.Dialect == config.DialectDefault {
		return tags.Masked(a.Tag)
	}
	return fmt.Sprintf("tag %q", tags.Masked(a.Tag))
}

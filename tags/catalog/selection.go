package catalog

import (
	"sluice/config"
	consulsource "sluice/discovery/consul"
	"sluice/tags/native"
)

// SelectionOf returns the catalog selection of c, or nil.
func SelectionOf(c *config.Config) *consulsource.Selection {
	if c.Catalog == nil {
		return nil
	}
	want := c.Catalog.Select
	s := &consulsource.Selection{
		Name:       want.Name,
		Tag:        want.Tag,
		Meta:       config.MetaOf(want.Meta),
		Typical:    len(c.Catalog.Tags) > 0 || c.Catalog.DefaultRule != "" || c.Catalog.Connect,
		Datacenter: c.Consul.Datacenter,
		Wait:       c.Consul.Wait,
		Probation:  c.Consul.Probation,
	}
	if c.Catalog.DefaultRule != "" {
		return s // also services without tags have routes
	}
	s.TagPrefixes = c.Catalog.TagPrefixes()
	if c.Catalog.Reads(config.DialectSluice) {
		s.MetaKey = native.MetaRoute
	}
	return s
}

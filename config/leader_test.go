package config

import (
	"testing"

	"sluice/test/verify"
)

func TestLeader(t *testing.T) {
	service := func(leader string) string {
		return "listeners: [{ address: ':1', protocol: tcp, service: db }]\nservices:\n  db:\n    consul:\n      leader: " + leader + "\n"
	}
	for text, cuts := range map[string]bool{"{ tag: primary }": true, "{ key: service/db/leader, on_demotion: drain }": false, "{ passing: true, on_demotion: cut }": true} {
		db := mustParse(t, service(text)).Services["db"]
		verify.That(t, db.Leader() != nil && db.Leader().CutsDemoted() == cuts, "%s: %+v", text, db.Leader())
	}
	const want = "want one of tag, passing: true and key, which says how Consul names the leader"
	for text, wrong := range map[string]string{
		"{}":                            "sluice.yaml:5: services.db.consul.leader: " + want,
		"{ on_demotion: cut }":          "sluice.yaml:5: services.db.consul.leader: " + want,
		"{ tag: a, key: b }":            "sluice.yaml:5: services.db.consul.leader: " + want,
		"{ tag: a, on_demotion: drop }": `sluice.yaml:5: services.db.consul.leader.on_demotion: value "drop": want one of cut, drain`,
	} {
		_, err := Parse("sluice.yaml", []byte(service(text)))
		diffLines(t, err, []string{wrong})
	}
	db := mustParse(t, "services: { db: { peers: ['127.0.0.1:1'] } }\nroutes: [{ service: db }]").Services["db"]
	verify.That(t, db.Leader() == nil && !db.Leader().CutsDemoted(), "without a leader: %+v", db.Leader())
}

package main

var doctorFaults = []mutation{
	{
		name: "critical-registration-is-the-live-one",
		file: "doctor/duplicates.go",
		old:  "-cmp.Compare(a.Status, b.Status),",
		new:  "cmp.Compare(a.Status, b.Status),",
		test: "./doctor TestDuplicates",
	},
	{
		name: "instance-in-maintenance-is-deregistered",
		file: "doctor/duplicates.go",
		old:  "case i.Status == discovery.StatusMaintenance:",
		new:  "case i.Status > discovery.StatusMaintenance:",
		test: "./doctor TestDuplicates|TestDiagnose",
	},
}

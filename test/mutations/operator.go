package main

var operatorFaults = []mutation{
	{
		name: "order-does-not-expire",
		file: "operator/store.go",
		old:  "return !ends.IsZero() && !now.Before(ends)",
		new:  "return !ends.IsZero() && now.After(ends.Add(time.Second))",
		test: "./operator TestOrdersExpire",
	},
	{
		name: "order-taken-by-a-process-that-does-not-own",
		file: "operator/store.go",
		old:  "\tif !owns {\n\t\treturn ErrTakeover\n",
		new:  "\tif !owns {\n\t\treturn f()\n",
		test: "./operator TestOnlyTheOwnerTakesAndWritesOrders",
	},
	{
		name: "orders-are-not-written",
		file: "operator/store.go",
		old:  "\tif owns {\n\t\ts.saveLocked()\n",
		new:  "\tif owns && s.written == nil {\n\t\ts.saveLocked()\n",
		test: "./operator TestOrdersSurviveARestart",
	},
	{
		name: "order-of-another-address",
		file: "operator/order.go",
		old:  "join(\"peers\", k.Service, k.ID, k.Address, k.Machine, string(kind))",
		new:  "join(\"peers\", k.Service, k.ID, k.Machine, string(kind))",
		test: "./operator TestKeysAreDifferentAndWhole",
	},
}

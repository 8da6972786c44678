-- Ends a lease. ARGV: 1 lease.
finish(ARGV[1])
return 1

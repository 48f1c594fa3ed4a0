-- REAP: end the run of an expired lease.
-- Result: ms until the lease expires | 0: the session has no owner | {run, node}: this run was ended now
-- Guarantee: a lease that is still valid is not touched.
local s = read_session()
if not s.running then return 0 end
if s.exp > now then return s.exp - now end
reap(s)
return { s.run, s.owner or '' }

// POST / {"call": "query", "with": [[1, 0, 0], {"topK": 2}]} calls env.VECTORIZE.query([1, 0, 0], {topK: 2}).
const CALLS = ["describe", "insert", "upsert", "query", "queryById", "getByIds", "deleteByIds"];

export default {
  async fetch(request, env) {
    const asked = await request.json();
    if (!CALLS.includes(asked.call)) return Response.json({ error: `call: one of ${CALLS}` }, { status: 400 });
    try {
      return Response.json(await env.VECTORIZE[asked.call](...(asked.with ?? [])));
    } catch (error) {
      return Response.json({ error: error.message }, { status: 502 });
    }
  },
};

"""The parts of a C file that are the same for every net but for a few words in capitals.

NAME is the name of the net, REAL is ``float`` or ``double``, INT the type that counts, and the F of a function of
<math.h> its suffix: ``expF`` is ``expf`` or ``exp``. `minidl.interop.c.source` puts the words in.
"""

FUNCTIONS = {
    "relu": """
static REAL NAME_relu(REAL x)
{
    return x <= 0 ? 0 : x;
}
""",
    "leaky_relu": """
static REAL NAME_leaky_relu(REAL x, REAL slope)
{
    return x <= 0 ? x * slope : x;
}
""",
    "clipped_relu": """
static REAL NAME_clipped_relu(REAL x, REAL slope, REAL threshold, REAL most)
{
    return x <= threshold ? (x - threshold) * slope : x > most ? most : x;
}
""",
    "sigmoid": """
static REAL NAME_sigmoid(REAL x)
{
    const REAL e = expF(-fabsF(x)); /* at most 1 */
    return (x < 0 ? e : 1) / (1 + e);
}
""",
    "tanh": """
static REAL NAME_tanh(REAL x)
{
    return tanhF(x);
}
""",
    "gelu": """
static REAL NAME_gelu(REAL x)
{
    return x * (erfcF(x * -SQRT_HALF) / 2);
}
""",
    "gelu_tanh": """
static REAL NAME_gelu_tanh(REAL x)
{
    const REAL twice = TWICE_SQRT_2_PI * (x + CUBIC * x * x * x); /* (1 + tanh(u)) / 2 is sigmoid(2 u) */
    const REAL e = expF(-fabsF(twice));                           /* at most 1 */
    return x * ((twice < 0 ? e : 1) / (1 + e));
}
""",
    "silu": """
static REAL NAME_silu(REAL x)
{
    const REAL e = expF(-fabsF(x)); /* at most 1 */
    return x * ((x < 0 ? e : 1) / (1 + e));
}
""",
    "softplus": """
static REAL NAME_softplus(REAL x)
{
    return (x > 0 ? x : 0) + log1pF(expF(-fabsF(x)));
}
""",
    "elu": """
static REAL NAME_elu(REAL x, REAL alpha)
{
    return x <= 0 ? expm1F(x) * alpha : x;
}
""",
    "softmax": """
static void NAME_softmax(REAL *z, INT n)
{
    REAL largest = z[0], sum = 0;
    for (INT j = 1; j < n; j++)
        if (z[j] > largest)
            largest = z[j];
    for (INT j = 0; j < n; j++) {
        z[j] = expF(z[j] - largest); /* at most 1 */
        sum += z[j];
    }
    for (INT j = 0; j < n; j++)
        z[j] /= sum;
}
""",
    "standardize": """
static void NAME_standardize(REAL *z, INT n, double epsilon)
{
    double sum = 0, squares = 0;
    for (INT j = 0; j < n; j++)
        sum += z[j];
    const REAL mean = (REAL)(sum / n);
    for (INT j = 0; j < n; j++)
        squares += ((double)z[j] - mean) * ((double)z[j] - mean);
    const REAL scale = (REAL)(1 / sqrt(squares / n + epsilon));
    for (INT j = 0; j < n; j++)
        z[j] = (z[j] - mean) * scale;
}
""",
}
"""What is called by name: the activations but for linear, and what layers need. The last two change a row in place."""

HEAD = """/* NAME: LAYERS, WEIGHTS, written by minidl.
 *
 *     void NAME_predict(const REAL *x, REAL *out);
 *
 * x: NAME_INPUTS numbers, a sample of shape (IN_SHAPE) in C order. out: NAME_OUTPUTS numbers. They may overlap.
 * Constants take CONSTANTS bytes, the arrays of a call STACK bytes of its stack. Nothing is allocated or kept from
 * call to call, so threads may call at once. Optimise it (-O3): the loops are written to become vector instructions.
 * With NAME_MAIN defined it is a program: samples from the standard input, a line of outputs for each.
 */
#include <math.h>

#define NAME_INPUTS INPUTS
#define NAME_OUTPUTS OUTPUTS

void NAME_predict(const REAL *x, REAL *out);
"""

MAIN = """
#ifdef NAME_MAIN
#include <stdio.h>

int main(void)
{
    static REAL x[NAME_INPUTS], out[NAME_OUTPUTS];
    INT count = 0;
    int found;
    while ((found = scanf("FORMAT_IN", &x[count])) == 1) {
        if (++count < NAME_INPUTS)
            continue;
        NAME_predict(x, out);
        for (INT j = 0; j < NAME_OUTPUTS; j++)
            printf("FORMAT_OUT%c", out[j], j + 1 < NAME_OUTPUTS ? ' ' : '\\n');
        count = 0;
    }
    if (found != EOF || count > 0) {
        fprintf(stderr, "%s\\n", found == EOF ? "the last sample is too short" : "this is not a number");
        return 1;
    }
    return 0;
}
#endif
"""
